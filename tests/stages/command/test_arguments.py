"""Numbers on a command line: what cannot be meant is refused by argparse, before anything is read."""

from __future__ import annotations

import pytest

from stages.cli import main

_WRONG = [
    ["plan", "--config", "c.yaml", "--samples", "0"],
    ["plan", "--config", "c.yaml", "--tflops", "-1"],
    ["plan", "--config", "c.yaml", "--records-per-s", "nan"],
    ["plan", "--config", "c.yaml", "--runs", "0"],
    ["rd", "--config", "c.yaml", "--records", "0"],
    ["rd", "--config", "c.yaml", "--budget", "inf"],
    ["sweep", "methods", "--config", "c.yaml", "--jobs", "0"],
    ["inspect", "check", "cache", "--jobs", "-1"],
    ["inspect", "export", "cache", "--html", "a.html", "--samples", "-1"],
    ["inspect", "verify", "--config", "c.yaml", "--samples", "0"],
    ["inspect", "verify", "--config", "c.yaml", "--threshold", "0"],
    ["generate", "a cat", "--config", "c.yaml", "--num-images", "many"],
    ["generate", "a cat", "--adapter", "a", "--guidance", "-1"],
    ["generate", "a cat", "--adapter", "a", "--guidance", "nan"],
    ["generate", "a cat", "--adapter", "a", "--steps", "0"],
    ["app", "--adapter", "a", "--guidance", "inf"],
    ["convert", "file", "--out", "folder", "--max-tokens", "0"],
]


@pytest.mark.parametrize("words", _WRONG, ids=" ".join)
def test_a_number_that_cannot_be_meant(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "is not a whole number from" in last or "is not a number above 0" in last or "from 0 on" in last


@pytest.mark.parametrize(("words", "needed"), [(["run"], "PIPELINE"), (["inspect", "remove"], "CACHE")])
def test_only_what_is_needed_is_asked_for(words: list[str], needed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings and keys, of which there may be none, are not."""
    with pytest.raises(SystemExit):
        main(words)
    assert capsys.readouterr().err.endswith(f"error: the following arguments are required: {needed}\n")
