"""`pea app` in a real browser. Needs the extra [app] and Debian's chromium and chromium-driver."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.app.studio import Studio, Wish
from pea.pipeline import PEAPrompt
from tests.data_tools.app import browser
from tests.pipeline.pipes import make_parts

ROOT = Path(__file__).parents[3]
IMAGES = ("adapter", "teacher", "by-words")
PIXELS = """
const image = document.querySelector('#NAME img');
if (!image || !image.complete || !image.naturalWidth) return null;
const canvas = document.createElement('canvas');
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
canvas.getContext('2d').drawImage(image, 0, 0);
return canvas.toDataURL('image/png');
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra [app] is not installed"),
    pytest.mark.skipif(not browser.is_here(), reason="chromium and chromedriver are not installed"),
]


def pixels(data_url: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the server does not answer")


def test_the_page_draws_what_it_is_asked_for(tmp_path: Path) -> None:
    parts, port = make_parts(tmp_path, "sdxl"), browser.free_port()
    url = f"http://127.0.0.1:{port}/"
    words = ["--adapter", str(parts / "adapter"), "--base", str(parts / "teacher"), "--steps", "2", "--port", str(port)]
    command = [sys.executable, "-W", "ignore", "-m", "stages.app", *words, "--device", "cpu"]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        wait_for(url, server)
        with browser.chromium() as page:
            page.open(url)
            page.wait_for("return document.querySelector('#prompt textarea') !== null")
            assert page.run("return document.querySelector('#language input').value") == "zh"
            assert page.run("return document.querySelector('#pipeline input').value") == "teacher"
            page.type("#prompt textarea", "一只猫☃")
            page.type("#english textarea", "a cat")
            page.type("#translation textarea", "one animal cat")
            page.type("#seed input", "3")
            page.click("#draw")
            shown = [pixels(page.wait_for(PIXELS.replace("NAME", name))) for name in IMAGES]
            said = page.wait_for("return document.querySelector('#notes textarea').value")
            asked = page.run("return performance.getEntriesByType('resource').map(each => each.name)")
            if folder := os.environ.get("PEA_SCREENSHOTS"):
                page.screenshot(Path(folder) / "app.png")
    finally:
        server.terminate()
        server.wait()
    assert asked and all(each.startswith((url, "data:", "blob:")) for each in asked), "nothing from elsewhere"
    studio = Studio({"zh": PEAPrompt.from_pretrained(parts / "adapter")}, {"t": parts / "teacher"}, torch.device("cpu"))
    wanted = studio.draw(Wish("zh", "t", "一只猫☃", "a cat", "one animal cat", seed=3, steps=2))
    assert said == "\n".join(wanted.notes) and "☃" in said
    for image, expected in zip(shown, (wanted.adapter, wanted.teacher, wanted.translation), strict=True):
        assert np.array_equal(image, expected)
