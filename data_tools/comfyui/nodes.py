"""Two ComfyUI nodes: load an adapter with its text encoder, and make CONDITIONING of a native prompt.

The conditioning takes the place of `CLIP Text Encode`'s in any graph of an SD1.5 or SDXL checkpoint. ComfyUI loads this
file by itself, so that nothing is imported at load; what the nodes need comes with `pip install pea-cache`.

Source: docs.comfy.org/custom-nodes/backend (`NODE_CLASS_MAPPINGS`, `INPUT_TYPES`, `RETURN_TYPES`, `FUNCTION`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pea.pipeline import PEAPrompt

Conditioning = list[list[Any]]
"""CONDITIONING: `[[states float32 [B, L, D], {"pooled_output": float32 [B, P] or None}]]`."""
_CATEGORY = "conditioning/PEA"
_WEIGHT = re.compile(r"\([^()]{1,60}:\s*\d*\.?\d+\s*\)")
"""`(cat:1.2)`"""


class PEALoader:
    """Loads an adapter and the text encoder that it was trained with."""

    RETURN_TYPES = ("PEA",)
    RETURN_NAMES = ("pea",)
    FUNCTION = "load"
    CATEGORY = _CATEGORY
    DESCRIPTION = "A PEA adapter and its text encoder: folders, or org/name of the hub."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple[Any, ...]]]:  # noqa: N802 - ComfyUI's name
        """The node's inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "adapter": ("STRING", {"default": "org/name", "tooltip": "Folder, or org/name@revision of the hub"})
            },
            "optional": {
                "encoder": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "Empty: as the adapter says. Of two encoders, one a line",
                        "multiline": True,
                    },
                ),
                "chunk": ("BOOLEAN", {"default": False, "tooltip": "Read prompts that are too long in pieces"}),
            },
        }

    def load(self, adapter: str, encoder: str = "", chunk: bool = False) -> tuple[PEAPrompt]:
        """The adapter with its encoder.

        Raises:
            CheckpointError: one of them is missing, or they do not belong together.
        """
        from pea.pipeline import PEAPrompt

        encoders = [line.strip() for line in encoder.splitlines() if line.strip()]
        return (PEAPrompt.from_pretrained(adapter.strip(), encoders or None, chunk=chunk),)


class PEATextEncode:
    """Turns a prompt into CONDITIONING."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = _CATEGORY
    DESCRIPTION = "A prompt in the adapter's language, for a KSampler; an empty one is the negative of its training."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple[Any, ...]]]:  # noqa: N802 - ComfyUI's name
        """The node's inputs, as ComfyUI asks for them."""
        text = ("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The prompt"})
        return {"required": {"pea": ("PEA",), "text": text}}

    def encode(self, pea: PEAPrompt, text: str) -> tuple[Conditioning]:
        """States float32 `[1, L, D]` and, of SDXL, the pooled embedding, on the CPU, as ComfyUI's own encoders do.

        Text that is not read is said in ComfyUI's log, and weights in brackets, which ComfyUI's own nodes obey.
        """
        import logging

        weights = [f"{found[0]} is read as text: a prompt here has no weights" for found in _WEIGHT.finditer(text)]
        for note in [*pea.notes([text]), *weights[:1]]:
            logging.getLogger(__name__).warning("PEA: %s", note)
        home = pea.device
        try:
            states, pooled = pea.to(_device(home)).encode_both([text], [text])[0]
        finally:
            pea.to(home)
        return ([[states.cpu(), {"pooled_output": None if pooled is None else pooled.cpu()}]],)


def _device(home: torch.device) -> torch.device:
    """Where ComfyUI has its text encoders run; outside of it, where the models are."""
    try:
        from comfy import model_management
    except ImportError:
        return home
    device: torch.device = model_management.text_encoder_device()
    return device


NODE_CLASS_MAPPINGS: dict[str, type] = {"PEALoader": PEALoader, "PEATextEncode": PEATextEncode}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "PEALoader": "Load PEA Adapter",
    "PEATextEncode": "PEA Text Encode (Prompt)",
}
