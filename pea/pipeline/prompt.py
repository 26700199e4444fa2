"""Native prompts for unmodified diffusers pipelines.

    pea = PEAPrompt.from_pretrained("org/adapter")
    image = pipe(**pea("一只猫")).images[0]
    pea.attach(pipe)
    image = pipe("一只猫").images[0]

`pipe` is any pipeline of SD1.5 or SDXL that takes `prompt_embeds`: text-to-image, img2img, inpainting, ControlNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from pea.errors import CheckpointError, warn
from pea.evaluation.drawing import prompt_arguments
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.encoders.pair import load_encoder
from pea.models.encoders.places import recorded_encoder
from pea.models.encoders.reading_limits import notes_on, split_text
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.encoders.traits import recorded_reading
from pea.models.native import check_encoder
from pea.pipeline.attaching import attach_to, detach_from
from pea.pipeline.publishing import prepare, upload, write_folder
from pea.plurals import count_of
from pea.storage.hub import local_folder, with_revision

Texts = str | Sequence[str]
Pipe = TypeVar("Pipe")


class PEAPrompt:
    """Turns prompts into the keyword arguments that replace `prompt` in a diffusers pipeline, or does so inside it."""

    def __init__(self, adapter: PEA, encoder: TextEncoder, *, any_encoder: bool = False, chunk: bool = False) -> None:
        """`any_encoder`, `chunk`: as of `from_pretrained`.

        Raises:
            CheckpointError: they do not belong together.
        """
        if adapter.config.input_dim != encoder.width:
            raise CheckpointError(
                "the adapter was trained for another text encoder",
                expected=f"hidden states of width {adapter.config.input_dim}",
                got=encoder.width,
            )
        if not any_encoder:
            check_encoder(adapter.config.encoder, encoder)
        self.adapter, self.encoder, self.chunk = adapter, encoder, chunk
        self.folder: Path | None = None
        """Where the adapter was loaded from."""
        self._dtype = torch.float32
        self._pipes: WeakSet[Any] = WeakSet()

    @classmethod
    def from_pretrained(
        cls,
        adapter: str | Path,
        encoder: str | Path | Sequence[str | Path] | None = None,
        *,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        any_encoder: bool = False,
        chunk: bool = False,
    ) -> PEAPrompt:
        """Load an adapter and its text encoder: folders, URLs, or `org/name` of the hub (`org/name@revision` pins one).

        An adapter that does not say which encoder that was gives a warning.

        Args:
            adapter: the adapter.
            encoder: its text encoder, or both of them; by default where the adapter's `config.json` says.
            revision: branch, tag or commit of the adapter on the hub; by default `main`.
            dtype: the text encoder is held, and the embeddings come out, in this type; by default float32.
            torch_dtype: the same, as diffusers before 0.40 calls it.
            any_encoder: take one that is not the adapter's own, such as the same in another precision.
            chunk: read prompts that are longer than the encoder allows in pieces, one after the other.

        Raises:
            CheckpointError: a folder is missing or unusable, or they do not belong together.
        """
        dtype = torch_dtype if dtype is None else dtype
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise CheckpointError("not a dtype", expected="torch.float16 or another float", got=repr(dtype))
        place = with_revision(adapter, revision)
        folder = local_folder(place)
        pea = PEA.load(folder)
        given = encoder if encoder is None or isinstance(encoder, list | tuple) else [encoder]
        places = recorded_encoder(pea.config.encoder, place) if given is None else map(with_revision, given)
        folders = [local_folder(each) for each in places]
        dtype = dtype or torch.float32
        own = load_encoder(folders, dtype, reading=recorded_reading(pea.config))
        prompt = cls(pea, own, any_encoder=any_encoder, chunk=chunk)
        prompt.folder, prompt._dtype = folder, dtype
        return prompt

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, or what is pickled: it is attached to nothing."""
        return vars(self) | {"_pipes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_pipes": WeakSet()})

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        device: torch.device = next(self.adapter.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The embeddings' type."""
        return self._dtype

    def to(
        self, device: torch.device | str | int | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> PEAPrompt:
        """Move both models; embeddings come out in `dtype` (the pipeline's), the models stay in their own."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            place = torch.device(device)
            self.adapter.to(place)
            self.encoder.to(place)
        self._dtype = dtype or self._dtype
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts -> conditioning float32 `[B, L, D]` and, for SDXL, `[B, P]`; too long ones are cut, unsaid."""
        hidden, mask = self.encoder.encode(_listed(prompts))
        conditioning: Conditioning = self.adapter(hidden.to(self.adapter.dtype), mask)
        return conditioning

    def encode_both(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Conditioning, Conditioning]:
        """Conditioning of prompts and negative prompts; read in pieces, both have as many as the longest text."""
        if not self.chunk:
            return self.encode(prompts), self.encode(negatives)
        each = [[split_text(self.encoder.parts, text) for text in texts] for texts in (prompts, negatives)]
        count = max(len(pieces) for texts in each for pieces in texts)
        positive, negative = (self._encode_pieces(texts, count) for texts in each)
        return positive, negative

    def __call__(
        self, prompt: Texts, negative_prompt: Texts | None = None, *, zero_negative: bool = False
    ) -> dict[str, Tensor]:
        """`prompt_embeds`, `negative_prompt_embeds` and, for SDXL, the pooled ones; one row per prompt.

        Warns of text that is not read and of characters that the encoder does not know. For several images of one
        prompt, use the pipeline's own `num_images_per_prompt`.

        Args:
            prompt: one, or a list.
            negative_prompt: one for all, or one for each; None: the empty one, as in training.
            zero_negative: of SDXL, zeros where `negative_prompt` is None, as SDXL has them for English.

        Raises:
            CheckpointError: zeros are asked for of an adapter for SD1.5; or numbers left the range of half precision.
            ValueError: no prompt, what is no text, or another number of negative prompts than of prompts.
        """
        prompts, negatives = _listed(prompt), _listed("" if negative_prompt is None else negative_prompt)
        if len(negatives) not in (1, len(prompts)):
            raise ValueError(f"{count_of(len(negatives), 'negative prompt')} for {count_of(len(prompts), 'prompt')}")
        zeros = zero_negative and negative_prompt is None
        if zero_negative and self.adapter.config.pooled_dim is None:
            raise CheckpointError(
                "SD1.5 has no zero negative", where=self.folder, remedy="Leave zero_negative out; SDXL knows it."
            )
        for note in self.notes([*prompts, *negatives]):
            warn(note)
        positive, negative = self.encode_both(prompts, negatives)
        arguments = prompt_arguments(positive, negative)
        if zeros:
            arguments |= {name: 0 * each for name, each in arguments.items() if name.startswith("negative_")}
        return {name: self._finite(tensor.to(self.dtype)) for name, tensor in arguments.items()}

    def notes(self, prompts: Sequence[str]) -> list[str]:
        """What is to be said of prompts that are not read whole: the text that is lost, the characters unknown."""
        return notes_on(self.encoder.parts, prompts, self.encoder.max_tokens, chunk=self.chunk)

    def attach(self, pipe: Pipe, *, zero_negative: bool = False) -> Pipe:
        """Have `pipe(prompt, negative_prompt=...)` read native prompts from now on; returns the pipe.

        Embeddings have the type of the pipe's UNet, and this one's models follow the pipe to its device; where the pipe
        is offloaded to the CPU, so are they between prompts. `zero_negative`: as in a call. Warns of a UNet with other
        weights than that which the adapter was trained for, where the adapter can tell.

        Raises:
            CheckpointError: it is no pipeline of a diffusion model that the adapter is for.
        """
        attach_to(pipe, self, zero_negative=zero_negative)
        self._pipes.add(pipe)
        return pipe

    def detach(self, pipe: Any = None) -> None:
        """Have `pipe`, by default every one that this is attached to, read English again."""
        for each in [pipe] if pipe is not None else list(self._pipes):
            detach_from(each, self)
            self._pipes.discard(each)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter into `folder`: configuration, weights, model card, and what it changes in the UNet."""
        write_folder(self.adapter, Path(folder), self.folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        encoder: str | Sequence[str] | None = None,
        base: str | None = None,
        licence: str | None = None,
        private: bool | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Publish the adapter as `org/name` of the hub; returns its address. Arguments: as of `pea push`.

        Raises:
            CheckpointError: it does not say what others need to use it, or the hub refuses.
        """
        with TemporaryDirectory() as temporary:
            source, out = Path(temporary) / "source", Path(temporary) / "out"
            if self.folder is None:
                self.save_pretrained(source)
            encoders = [encoder] if isinstance(encoder, str) else encoder
            prepare(self.folder or source, out, repo_id, encoders=encoders, base=base, licence=licence)
            return upload(out, repo_id, private=private, message=commit_message)

    def _encode_pieces(self, texts: Sequence[Sequence[str]], count: int) -> Conditioning:
        """States of the pieces one after the other, `[B, count * L, D]`; pooled, the mean of a text's own pieces."""
        flat = [piece for pieces in texts for piece in (*pieces, *[""] * (count - len(pieces)))]
        states, pooled = self.encode(flat)
        states = states.reshape(len(texts), -1, states.shape[-1])
        if pooled is None:
            return Conditioning(states, None)
        each = pooled.reshape(len(texts), count, -1)
        return Conditioning(
            states, torch.stack([row[: len(own)].mean(0) for row, own in zip(each, texts, strict=True)])
        )

    def _finite(self, tensor: Tensor) -> Tensor:
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(
                "the embeddings left the range of numbers",
                where=self.folder,
                got=str(self.dtype).removeprefix("torch."),
                remedy="Load it with dtype=torch.bfloat16, or without.",
            )
        return tensor


def _listed(texts: Texts) -> list[str]:
    each = [texts] if isinstance(texts, str) else texts
    if not isinstance(each, list | tuple) or not each or not all(isinstance(text, str) for text in each):
        raise ValueError(f"a prompt is a text, or a list of texts; got {texts!r:.60}")
    for text in each:
        if text.encode(errors="replace").decode() != text:
            raise ValueError(f"half a character in a prompt (a lone surrogate): {text!r:.60}")
    return list(each)
