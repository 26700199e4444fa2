"""The frozen encoders of images, of English captions, and of native captions.

Shapes: B batch, L tokens, D width of the hidden states, P width of the pooled embedding, c,h,w latent channels and
size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from pea.errors import CheckpointError

MAX_NATIVE_TOKENS = 77
"""Longest native caption in tokens, where the encoder itself allows more."""
_VAE_PIXELS_PER_PASS = 4 << 20
"""On a GPU: bounds the memory of a batch of large images."""
_VAE_PIXELS_PER_PASS_CPU = 1 << 16
"""On a CPU: a pass over few small images stays in the processor's cache; 1.5 times as fast as one over 64."""


class Conditioning(NamedTuple):
    """What the UNet is told about the text."""

    encoder_hidden_states: Tensor
    """float `[B, L, D]`, read by cross-attention."""
    pooled_prompt_embeds: Tensor | None
    """float `[B, P]`, added to the time embedding; None for SD1.5-shaped teachers."""


def on_device(states: Sequence[Tensor | None], device: torch.device | str) -> Conditioning:
    """Hidden states `[B, L, D]` and pooled embedding `[B, P]` (or None), as a conditioning on `device`."""
    hidden, pooled = states
    assert hidden is not None
    return Conditioning(hidden.to(device), None if pooled is None else pooled.to(device))


class VaeEncoder:
    """The frozen image encoder of a diffusers checkpoint."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.scaling_factor = float(vae.config.scaling_factor)

    @classmethod
    def from_checkpoint(
        cls, folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> VaeEncoder:
        """Load `<folder>/vae`. A VAE that overflows in half precision (`force_upcast`) runs in float32.

        Raises:
            CheckpointError: the folder is missing or is not an AutoencoderKL.
        """
        vae = load_part(AutoencoderKL, folder / "vae", dtype)
        if vae.config.force_upcast and dtype == torch.float16:
            vae = vae.float()
        return cls(vae.to(device))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Images float `[B, 3, H, W]` in [-1, 1] -> float32 mean and standard deviation `[B, c, h, w]`, unscaled."""
        at_once = max(1, self._pixels_per_pass // (pixels.shape[2] * pixels.shape[3]))
        means, stds = zip(*map(self._encode, torch.split(pixels, at_once)), strict=True)
        return torch.cat(means), torch.cat(stds)

    @property
    def _pixels_per_pass(self) -> int:
        return _VAE_PIXELS_PER_PASS_CPU if self.vae.device.type == "cpu" else _VAE_PIXELS_PER_PASS

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels.to(self.vae.device, self.vae.dtype, memory_format=torch.channels_last)
        moments = self.vae.encode(pixels).latent_dist
        return moments.mean.float(), moments.std.float()


def vae_scaling_factor(folder: Path) -> float:
    """The factor between the VAE's moments and the UNet's latents in `<folder>/vae`, without loading weights.

    Raises:
        CheckpointError: there is no VAE configuration.
    """
    try:
        config = AutoencoderKL.load_config(str(folder / "vae"), local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError("no VAE configuration", where=folder / "vae", got=str(error).splitlines()[0]) from error
    return float(config.get("scaling_factor", 0.18215))


def sample_latents(mean: Tensor, std: Tensor, noise: Tensor, scaling_factor: float) -> Tensor:
    """One sample of the VAE's posterior, in the UNet's scale; all `[B, c, h, w]`."""
    return (mean + std * noise) * scaling_factor


class EnglishEncoder:
    """The teacher's own text encoder (SD1.5) or encoders (SDXL), used as the diffusers pipelines use them."""

    def __init__(self, parts: Sequence[tuple[CLIPTokenizer, nn.Module]]) -> None:
        self.parts = [(tokenizer, model.requires_grad_(False).eval()) for tokenizer, model in parts]
        self._lock = threading.Lock()  # a tokenizer cannot be asked by two threads at once

    @classmethod
    def from_checkpoint(
        cls, folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> EnglishEncoder:
        """Load `tokenizer/` and `text_encoder/`, and for SDXL `tokenizer_2/` and `text_encoder_2/`.

        Raises:
            CheckpointError: a folder is missing or is not a CLIP text encoder.
        """
        kinds: list[tuple[str, type]] = [("", CLIPTextModel)]
        if (folder / "text_encoder_2").is_dir():
            kinds.append(("_2", CLIPTextModelWithProjection))
        parts = []
        for suffix, kind in kinds:
            tokenizer = load_tokenizer(CLIPTokenizer, folder / f"tokenizer{suffix}")
            parts.append((tokenizer, load_part(kind, folder / f"text_encoder{suffix}", dtype).to(device)))
        return cls(parts)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Captions -> the teacher's conditioning.

        SD1.5: the last hidden state after its layer norm. SDXL: the penultimate hidden states of both encoders side by
        side, and the projected pooled embedding of the second. Longer captions are cut at the tokenizer's limit.
        """
        if len(self.parts) == 1:
            return Conditioning(self._run(0, texts).last_hidden_state, None)
        outputs = [self._run(index, texts) for index in range(len(self.parts))]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return Conditioning(hidden, outputs[-1].text_embeds)

    def _run(self, index: int, texts: Sequence[str]) -> Any:
        tokenizer, model = self.parts[index]
        with self._lock:
            tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        return model(tokens.input_ids.to(model.device), output_hidden_states=True)


class NativeEncoder:
    """The frozen text encoder of another language: the text tower of a dual encoder, or a plain text model."""

    def __init__(self, model: nn.Module, tokenizer: Any, max_tokens: int) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        max_tokens: int | None = None,
    ) -> NativeEncoder:
        """Load a transformers folder: Chinese-CLIP, AltCLIP, CLIP, a vision-text dual encoder, BERT, XLM-R, (m)T5...

        Raises:
            CheckpointError: the folder is missing, or holds no text model.
        """
        config = load_part(AutoConfig, folder, None)
        model = _text_tower(load_part(AutoModel, folder, dtype), folder)
        tokenizer = load_tokenizer(AutoTokenizer, folder)
        return cls(model.to(device), tokenizer, max_tokens or longest(tokenizer, config))

    @property
    def width(self) -> int:
        """Width D of the hidden states."""
        config: Any = self.model.config
        # AltCLIP projects its hidden states to the width that the English CLIP had.
        return int(getattr(config, "project_dim", None) or getattr(config, "hidden_size", None) or config.d_model)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> last hidden state float `[B, L, D]` and attention mask int64 `[B, L]`, padded to `max_tokens`."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        mask = tokens["attention_mask"].to(device)
        hidden = self.model(input_ids=tokens["input_ids"].to(device), attention_mask=mask).last_hidden_state
        return hidden, mask


def load_part(kind: Any, folder: Path, dtype: torch.dtype | None) -> Any:
    """`kind.from_pretrained(folder)` from local safetensors only; the `fp16` variant where there is no other.

    Raises:
        CheckpointError: the folder is missing, incomplete, or of another kind.
    """
    if not folder.is_dir():
        raise CheckpointError("no such model folder", where=folder, remedy="Check the path in the configuration.")
    options: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        name = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
        options |= {name: dtype, "use_safetensors": True}
        if only_fp16(folder):
            options["variant"] = "fp16"
    try:
        with quiet_loading():
            return kind.from_pretrained(str(folder), **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"cannot load this folder as {kind.__name__}",
            where=folder,
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            remedy="Give a complete folder in the standard layout with safetensors weights.",
        ) from error


def only_fp16(folder: Path) -> bool:
    """Whether a model's folder holds weights in the `fp16` variant alone, as a download with `variant="fp16"` does."""
    return not list(folder.glob("*model.safetensors*")) and bool(list(folder.glob("*.fp16.safetensors")))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers and diffusers from drawing bars, and from hinting at packages that are not needed here."""
    shown, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()
            diffusers_logging.enable_progress_bar()


def load_tokenizer(kind: Any, folder: Path) -> Any:
    """A tokenizer from a local folder.

    Raises:
        CheckpointError: the folder is missing or holds no tokenizer of this kind.
    """
    tokenizer = load_part(kind, folder, None)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise CheckpointError("the tokenizer's vocabulary is empty or missing", where=folder)
    return tokenizer


def _text_tower(model: nn.Module, folder: Path) -> nn.Module:
    tower = getattr(model, "text_model", None)
    if tower is None and getattr(model.config, "is_encoder_decoder", False):
        tower = model.get_encoder()  # type: ignore[operator]
    if tower is None and hasattr(model, "get_input_embeddings"):
        tower = model
    if not isinstance(tower, nn.Module) or hasattr(tower.config, "patch_size"):
        raise CheckpointError("no text encoder in this model", where=folder, got=type(model).__name__)
    return tower


def longest(tokenizer: Any, config: Any) -> int:
    """Most tokens that both the tokenizer and the position embeddings allow, up to `MAX_NATIVE_TOKENS`."""
    text = getattr(config, "text_config", None) or config
    positions = getattr(text, "max_position_embeddings", None) or MAX_NATIVE_TOKENS
    if "roberta" in str(getattr(text, "model_type", "")) or getattr(config, "model_type", "") == "altclip":
        positions -= 1 + int(text.pad_token_id or 0)  # RoBERTa counts positions from after the padding's
    return int(min(positions, tokenizer.model_max_length, MAX_NATIVE_TOKENS))
