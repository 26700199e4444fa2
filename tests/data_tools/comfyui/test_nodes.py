"""The ComfyUI nodes keep the contract of custom nodes, and a graph of them gives what a pipeline is given."""

from __future__ import annotations

import ast
import importlib.util
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from pea.errors import CheckpointError
from pea.pipeline import PEAPrompt
from tests.pipeline.pipes import INPUTS, draw, make_parts

FOLDER = Path(__file__).parents[3] / "data_tools/comfyui"


@pytest.fixture(scope="module")
def nodes() -> types.ModuleType:
    """As ComfyUI loads a folder of `custom_nodes`: by its file, under the name of its path."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_parts(tmp_path_factory.mktemp(request.param), request.param)


class Graph:
    """ComfyUI's way through a graph: inputs checked against INPUT_TYPES, FUNCTION called, results by RETURN_TYPES."""

    def __init__(self, nodes: types.ModuleType, prompt: dict[str, dict[str, Any]]) -> None:
        self.classes, self.prompt = nodes.NODE_CLASS_MAPPINGS, prompt
        self.results: dict[tuple[str, int], tuple[str, Any]] = {}

    def run(self) -> None:
        for key, node in self.prompt.items():
            kind = self.classes[node["class_type"]]
            declared = kind.INPUT_TYPES()
            types_of = {name: each[0] for group in declared.values() for name, each in group.items()}
            assert declared["required"].keys() <= node["inputs"].keys() <= types_of.keys()
            inputs = {name: self._input(value, types_of[name]) for name, value in node["inputs"].items()}
            answer = getattr(kind(), kind.FUNCTION)(**inputs)
            assert isinstance(answer, tuple) and len(answer) == len(kind.RETURN_TYPES)
            for index, (value, type_name) in enumerate(zip(answer, kind.RETURN_TYPES, strict=True)):
                self.results[key, index] = type_name, value

    def _input(self, value: Any, wanted: str) -> Any:
        if not isinstance(value, list):
            assert isinstance(value, {"STRING": str, "BOOLEAN": bool}[wanted])
            return value
        type_name, found = self.results[value[0], value[1]]
        assert type_name == wanted, f"{type_name} does not fit {wanted}"
        return found


def conditioning(nodes: types.ModuleType, parts: Path, text: str, **loader: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    graph = Graph(
        nodes,
        {
            "1": {"class_type": "PEALoader", "inputs": {"adapter": str(parts / "adapter"), **loader}},
            "2": {"class_type": "PEATextEncode", "inputs": {"pea": ["1", 0], "text": text}},
        },
    )
    graph.run()
    kind, [[states, extra]] = graph.results["2", 0]
    assert kind == "CONDITIONING" and isinstance(extra, dict)
    return states, extra


def test_nothing_is_imported_at_load_but_the_standard_library() -> None:
    for file in FOLDER.glob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert str(node.module).split(".")[0] in sys.stdlib_module_names


def test_the_contract(nodes: types.ModuleType) -> None:
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys() == {"PEALoader", "PEATextEncode"}
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        assert isinstance(kind.CATEGORY, str) and callable(getattr(kind, kind.FUNCTION))
        assert all(isinstance(each, str) for each in kind.RETURN_TYPES)
        for group, inputs in kind.INPUT_TYPES().items():
            assert group in ("required", "optional")
            for declared in inputs.values():
                assert isinstance(declared, tuple) and isinstance(declared[0], str)
                assert len(declared) == 1 or isinstance(declared[1], dict)


@pytest.mark.slow
def test_a_graph_gives_what_a_pipeline_is_given(nodes: types.ModuleType, parts: Path) -> None:
    states, extra = conditioning(nodes, parts, "一只猫")
    empty, empty_extra = conditioning(nodes, parts, "")
    pea = PEAPrompt.from_pretrained(parts / "adapter")
    given = pea("一只猫")
    assert torch.equal(states, given["prompt_embeds"]) and states.dtype == torch.float32
    assert torch.equal(empty, given["negative_prompt_embeds"]) and states.shape[0] == 1
    embeds = {"prompt_embeds": states, "negative_prompt_embeds": empty}
    if pea.adapter.config.pooled_dim is None:
        assert extra == {"pooled_output": None}
        pipe = StableDiffusionPipeline.from_pretrained(parts / "teacher")
    else:
        assert torch.equal(extra["pooled_output"], given["pooled_prompt_embeds"])
        embeds |= {"pooled_prompt_embeds": extra["pooled_output"]}
        embeds |= {"negative_pooled_prompt_embeds": empty_extra["pooled_output"]}
        pipe = StableDiffusionXLPipeline.from_pretrained(parts / "teacher")
    pipe.set_progress_bar_config(disable=True)
    assert (draw(pipe, **embeds, **INPUTS["text"]) == draw(pipe, **given, **INPUTS["text"])).all()


@pytest.mark.slow
def test_an_encoder_may_be_given_and_long_prompts_read_in_pieces(
    nodes: types.ModuleType, parts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short, _ = conditioning(nodes, parts, "一只猫狗红球大小", encoder=f"{parts / 'zh'}\n")
    with caplog.at_level(logging.WARNING):
        cut, _ = conditioning(nodes, parts, "一只猫狗红球大小雪草")
    assert "lost of a prompt: '雪草'" in caplog.text and torch.equal(cut, short)
    whole, _ = conditioning(nodes, parts, "一只猫狗红球大小雪草", chunk=True)
    assert whole.shape[1] == 2 * short.shape[1] and torch.allclose(whole[:, : short.shape[1]], short, atol=1e-6)
    with pytest.raises(CheckpointError, match="no adapter here"):
        conditioning(nodes, parts, "", adapter=str(parts / "teacher"))


def test_weights_in_brackets_are_said_to_be_text(
    nodes: types.ModuleType, parts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        conditioning(nodes, parts, "一只(猫:1.2)")
    assert "(猫:1.2) is read as text: a prompt here has no weights" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        conditioning(nodes, parts, "一只(猫)")
    assert "has no weights" not in caplog.text


def test_in_comfyui_its_device_is_taken_and_given_back(
    nodes: types.ModuleType, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comfy = types.ModuleType("comfy")
    comfy.model_management = types.SimpleNamespace(text_encoder_device=lambda: torch.device("cpu", 0))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    moves: list[str] = []
    monkeypatch.setattr(PEAPrompt, "to", lambda self, device=None, dtype=None: moves.append(str(device)) or self)
    conditioning(nodes, parts, "一只猫")
    assert moves == ["cpu:0", "cpu"]
