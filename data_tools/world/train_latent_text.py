"""Training an English encoder whose states say what is in a picture: from the caption alone it foretells the latents.

A contrastive encoder learns from images through a vision tower, which costs ten times the text tower. Where the encoder
is wanted for a teacher alone, the VAE's latents are the images: one linear layer on the state at the caption's end has
to give them. How a thing's state becomes its looks is then the same for all things, and a UNet learns it once for all.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from data_tools.world.tokenizers import clip_tokenizer
from data_tools.world.train_text import Corpus
from data_tools.world.train_unet import images_and_captions
from data_tools.world.training import Report, cosine_schedule, minibatches, save_model, update
from pea.models.loading import load_part

_BATCH_SIZE = 64
_WIDTH = 128


class _Describer(nn.Module):
    """A text encoder and the layer that reads the latents off its last state."""

    def __init__(self, tokenizer: CLIPTokenizer, latents: Tensor) -> None:
        super().__init__()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=_WIDTH,
                intermediate_size=2 * _WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        self.picture = nn.Linear(_WIDTH, latents[0].numel())

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids `[N, L]` -> latents, flat, `[N, C·H·W]`."""
        return self.picture(self.text(input_ids).pooler_output)


def train_english_on_latents(
    folder: Path, vae_folder: Path, steps: int, seed: int, report: Report, corpus: Corpus, max_tokens: int
) -> float:
    """Save `text_model/` and `tokenizer/`; returns the share of the latents' variance that was not foretold."""
    torch.manual_seed(seed)
    vae = load_part(AutoencoderKL, vae_folder, torch.float32)
    (latents, _), captions = images_and_captions(
        vae, corpus.world, corpus.num_general, corpus.english_per_concept, seed
    )
    tokenizer = clip_tokenizer(captions)
    tokenizer.model_max_length = max_tokens
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    model = _Describer(tokenizer, latents)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    schedule = cosine_schedule(optimizer, steps)
    recent = torch.ones(20)
    for step, (batch, truth) in zip(range(steps), minibatches((ids, latents), _BATCH_SIZE, seed), strict=False):
        loss = functional.mse_loss(model(batch), truth.flatten(1))
        update(model, optimizer, schedule, loss)
        recent[step % len(recent)] = loss.detach()
        report(step, steps, loss)
    save_model(model.text, folder / "text_model")
    tokenizer.save_pretrained(folder / "tokenizer")
    return float(recent.mean() / latents.var())
