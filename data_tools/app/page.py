"""The page itself, in Gradio: boxes, a button, and up to three images. Nothing is loaded from elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from data_tools.app.studio import Studio, Wish
from pea.errors import PeaError

if TYPE_CHECKING:
    from pea.evaluation.drawing import Images

_FONTS = ["system-ui", "sans-serif"]


def make_page(studio: Studio, *, steps: int = 25, guidance: float = 5.0) -> Any:
    """Gradio's `Blocks`; `steps`, `guidance`: what the page begins with."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    def show(*values: Any) -> tuple[Images | None, Images | None, Images | None, str]:
        prompt, english, translation, negative, language, base, seed, num_steps, scale = values
        wish = Wish(
            language, base, prompt, english, translation, negative, int(seed or 0), int(num_steps), float(scale)
        )
        try:
            answer = studio.draw(wish)
        except PeaError as error:
            raise gradio.Error(str(error), print_exception=False) from None
        return answer.adapter, answer.teacher, answer.translation, "\n".join(answer.notes)

    with gradio.Blocks(title="PEA", analytics_enabled=False) as page:
        gradio.Markdown("# PEA: an adapter beside its teacher\nThe three images begin with the same noise.")
        with gradio.Row():
            prompt = gradio.Textbox(label="Prompt", lines=2, elem_id="prompt")
            english = gradio.Textbox(label="The same in English, for the teacher", lines=2, elem_id="english")
            words = gradio.Textbox(label="Word-for-word translation (optional)", lines=2, elem_id="translation")
        with gradio.Row():
            language = gradio.Dropdown(
                studio.languages, value=studio.languages[0], label="Language", elem_id="language"
            )
            base = gradio.Dropdown(
                list(studio.bases), value=next(iter(studio.bases)), label="Pipeline", elem_id="pipeline"
            )
            seed = gradio.Number(0, label="Seed", precision=0, elem_id="seed")
            num_steps = gradio.Slider(1, 100, value=steps, step=1, label="Steps", elem_id="steps")
            scale = gradio.Slider(0, 20, value=guidance, label="Guidance", elem_id="guidance")
            negative = gradio.Textbox(label="Negative prompt", elem_id="negative")
        button = gradio.Button("Draw", variant="primary", elem_id="draw")
        with gradio.Row():
            buttons = ["download", "fullscreen"]  # and none that sends images elsewhere
            labels = {"adapter": "Adapter", "teacher": "Teacher, in English", "by-words": "Teacher, word for word"}
            images = [
                gradio.Image(label=label, elem_id=name, format="png", height=420, interactive=False, buttons=buttons)
                for name, label in labels.items()
            ]
        notes = gradio.Textbox(label="Not read of the prompt", interactive=False, elem_id="notes")
        inputs = [prompt, english, words, negative, language, base, seed, num_steps, scale]
        button.click(show, inputs, [*images, notes], api_name=False)
        prompt.submit(show, inputs, [*images, notes], api_name=False)
    return page


def serve(page: Any, port: int, *, wait: bool = True) -> str:
    """Serve the page on 127.0.0.1 alone; returns its address. `wait`: until the process is interrupted."""
    import gradio

    theme = gradio.themes.Default(font=_FONTS, font_mono=["monospace"])
    options = {"server_name": "127.0.0.1", "server_port": port, "share": False, "quiet": True}
    options |= {"ssr_mode": False, "footer_links": []}
    _, address, _ = page.launch(**options, theme=theme, prevent_thread_lock=True)
    if wait:
        page.block_thread()
    return str(address)
