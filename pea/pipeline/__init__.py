"""Native prompts for unmodified diffusers pipelines: what most people will ever import."""

from pea.pipeline.prompt import PEAPrompt

__all__ = ["PEAPrompt"]
