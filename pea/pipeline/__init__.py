"""Native prompts for unmodified diffusers pipelines: what most people will ever import."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pea.pipeline.prompt import PEAPrompt

__all__ = ["PEAPrompt"]


def __getattr__(name: str) -> Any:
    """`PEAPrompt` when it is asked for: a report needs the model card's words, and not diffusers."""
    if name == "PEAPrompt":
        from pea.pipeline.prompt import PEAPrompt

        return PEAPrompt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
