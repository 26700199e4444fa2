"""Contrastive training of the world's text encoders: English CLIPs for the teachers, native ones for the adapters.

All of them are the real classes of transformers with small configurations, trained on painted images and captions as
their large counterparts were on photographs: culture concepts under a descriptive caption in English, and under their
own name in their own language.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextModelWithProjection,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from data_tools.world.captions import caption, captions
from data_tools.world.scenes import Scene, culture_scenes
from data_tools.world.tokenizers import MAX_TOKENS, bert_tokenizer, clip_tokenizer, xlm_roberta_tokenizer
from data_tools.world.train_images import paint_all, to_tensor, training_scenes
from data_tools.world.training import Report, cosine_schedule, minibatches, save_model, update
from data_tools.world.worlds import SMALL_WORLD, World
from pea.storage.durable import write_text

_BATCH_SIZE = 96


@dataclass(frozen=True)
class Corpus:
    """What an encoder learns from: so many general scenes, and of each culture concept so many; and its eyes' width."""

    world: World = SMALL_WORLD
    num_general: int = 12_000
    english_per_concept: int = 200
    native_per_concept: int = 300
    vision_width: int = 128

    @property
    def vision(self) -> dict[str, int]:
        """Configuration of the vision tower: 16 patches of the world's images."""
        return {
            "hidden_size": self.vision_width,
            "intermediate_size": 2 * self.vision_width,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": self.world.image_size_px,
            "patch_size": self.world.image_size_px // 4,
            "projection_dim": 128,
        }

    @property
    def preprocessor(self) -> dict[str, Any]:
        """For users of the native CLIPs: what `to_tensor` does."""
        size_px = self.world.image_size_px
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": size_px},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": size_px, "width": size_px},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_convert_rgb": True,
        }


SMALL_CORPUS = Corpus()


def train_english(
    folder: Path, width: int, steps: int, seed: int, report: Report, corpus: Corpus = SMALL_CORPUS
) -> float:
    """A CLIP on English captions; saves `text_model/`, `text_model_with_projection/` and `tokenizer/`."""
    torch.manual_seed(seed)
    world = corpus.world
    scenes = training_scenes(corpus.num_general, corpus.english_per_concept, seed, world.vocabulary)
    texts = [caption(scene, "en", world.languages) for scene in scenes]
    tokenizer = clip_tokenizer(texts)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS["english"],
        "projection_dim": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=corpus.vision, projection_dim=128))
    score = _train(model, tokenizer, paint_all(scenes, world), texts, steps, seed, report)
    projected = CLIPTextModelWithProjection(model.config.text_config)
    projected.text_model.load_state_dict(model.text_model.state_dict())
    projected.text_projection.load_state_dict(model.text_projection.state_dict())
    save_model(model.text_model, folder / "text_model")
    save_model(projected, folder / "text_model_with_projection")
    tokenizer.save_pretrained(folder / "tokenizer")
    return score


def train_chinese(
    folder: Path,
    steps: int,
    seed: int,
    report: Report,
    corpus: Corpus = SMALL_CORPUS,
    language: str = "zh",
    *,
    whole_script: bool = True,
) -> float:
    """A `ChineseCLIPModel` with a character-level `BertTokenizer`, on the captions of one language.

    `whole_script`: of the tokenizer.
    """
    torch.manual_seed(seed)
    scenes = _scenes_with_caption((language,), seed, corpus)
    texts = [caption(scene, language, corpus.world.languages) for scene in scenes]
    tokenizer = bert_tokenizer(texts, whole_script=whole_script)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS["chinese"],
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = ChineseCLIPModel(ChineseCLIPConfig(text_config=text, vision_config=corpus.vision, projection_dim=128))
    return _train_and_save(folder, model, tokenizer, scenes, texts, steps, seed, report, corpus)


def train_multilingual(folder: Path, steps: int, seed: int, report: Report, corpus: Corpus = SMALL_CORPUS) -> float:
    """An `AltCLIPModel` (XLM-RoBERTa text tower) on all six languages, as AltCLIP-m9 is."""
    torch.manual_seed(seed)
    scenes = _scenes_with_caption(tuple(corpus.world.languages), seed, corpus)
    named = [captions(scene, corpus.world.languages) for scene in scenes]
    texts = [list(spoken.values())[row % len(spoken)] for row, spoken in enumerate(named)]
    tokenizer = xlm_roberta_tokenizer([text for spoken in named for text in spoken.values()])
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS["multilingual"] + 2,
        "project_dim": 128,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = AltCLIPModel(AltCLIPConfig(text_config=text_config, vision_config=corpus.vision, projection_dim=128))
    return _train_and_save(folder, model, tokenizer, scenes, texts, steps, seed, report, corpus)


def _scenes_with_caption(languages: Iterable[str], seed: int, corpus: Corpus) -> list[Scene]:
    """Scenes that at least one of the languages has words for; culture concepts on every background.

    A large CLIP has met its language's dishes and festivals everywhere; what adapter and teacher are judged by stays
    held out of what *they* learn from, and the general combinations are held out here too.
    """
    vocabulary, words = corpus.world.vocabulary, corpus.world.languages
    concepts = {concept for code in languages for concept in words[code].concepts}
    num_everywhere = corpus.native_per_concept // 5 * len(vocabulary.all_concepts)
    everywhere = culture_scenes(vocabulary.all_concepts, num_everywhere, seed + 9, held_out=True, vocabulary=vocabulary)
    scenes = training_scenes(corpus.num_general, corpus.native_per_concept, seed, vocabulary) + everywhere
    return [scene for scene in scenes if not scene.is_culture or scene.shape in concepts]


def _train_and_save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    scenes: list[Scene],
    texts: list[str],
    steps: int,
    seed: int,
    report: Report,
    corpus: Corpus,
) -> float:
    score = _train(model, tokenizer, paint_all(scenes, corpus.world), texts, steps, seed, report)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    write_text(folder / "preprocessor_config.json", json.dumps(corpus.preprocessor, indent=2) + "\n")
    return score


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    painted: np.ndarray,
    texts: list[str],
    steps: int,
    seed: int,
    report: Report,
) -> float:
    """The symmetric contrastive loss; returns the image -> text retrieval accuracy over the last batches."""
    images = torch.from_numpy(painted)
    tokens = _tokenize(tokenizer, texts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = cosine_schedule(optimizer, steps)
    hits: list[float] = []
    batches = minibatches((images, tokens["input_ids"], tokens["attention_mask"]), _BATCH_SIZE, seed)
    model.train()
    for step, (batch, input_ids, attention_mask) in zip(range(steps), batches, strict=False):
        output = model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=to_tensor(batch.numpy()))
        logits, truth = output.logits_per_image, torch.arange(len(batch))
        loss = (functional.cross_entropy(logits, truth) + functional.cross_entropy(logits.T, truth)) / 2
        update(model, optimizer, schedule, loss)
        hits.append(float((logits.argmax(1) == truth).float().mean()))
        report(step, steps, loss)
    model.eval()
    return sum(hits[-20:]) / len(hits[-20:])


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
    encoded: Any = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
