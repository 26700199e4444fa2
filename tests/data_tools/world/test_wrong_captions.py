"""A share of the samples get each other's captions, and nothing else changes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from data_tools.world.wrong_captions import exchanged, main
from pea.corpus.caption_tables import CaptionTables

NUM_SAMPLES = 10


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Two tars of five samples with captions in two languages."""
    for number in range(2):
        with tarfile.open(tmp_path / f"part-{number}.tar", "w") as tar:
            for key in range(number * 5, number * 5 + 5):
                document = {"captions": {"en": f"thing {key}", "zh": f"物 {key}"}}
                for name, content in ((f"{key}.png", b"-"), (f"{key}.json", json.dumps(document).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return str(tmp_path / "part-*.tar")


def _run(corpus: str, out: Path, *more: str) -> int:
    return main(["--corpus", corpus, "--language", "zh", "--out", str(out), *more])


def test_a_share_of_the_captions_belongs_to_others(corpus: str, tmp_path: Path) -> None:
    assert _run(corpus, tmp_path / "wrong", "--share", "0.4") == 0
    tables = CaptionTables([tmp_path / "wrong"])
    found = {int(key): texts for tar in ("part-0", "part-1") for key, texts in tables.of_tar(tar).items()}
    assert len(found) == 4 and all(set(texts) == {"zh"} for texts in found.values())
    assert all(texts["zh"] != f"物 {key}" for key, texts in found.items())
    assert sorted(texts["zh"] for texts in found.values()) == sorted(f"物 {key}" for key in found)


def test_the_same_seed_is_the_same_choice() -> None:
    captions = [str(number) for number in range(100)]
    first = exchanged(captions, 0.2, 0)
    assert len(first) == 20 and first == exchanged(captions, 0.2, 0) != exchanged(captions, 0.2, 1)


@pytest.mark.parametrize(
    ("more", "message"), [(["--share", "0.1"], "too few samples"), (["--language", "ja"], "a caption in ja")]
)
def test_nothing_to_exchange_is_an_error(
    corpus: str, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(corpus, tmp_path / "wrong", *more) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "wrong").exists()


def test_a_share_is_a_share(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _run(corpus, tmp_path / "wrong", "--share", "1.5")
