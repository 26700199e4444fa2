"""Data cards that a manifest carries: shown, bounded, and no part of the identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_tools.inspect.export import export
from data_tools.inspect.info import collect, render
from pea.cache import Cache
from pea.cache.cards import FILE_NAME, MOST_CARDS, digest_of_tars, read_card
from pea.cache.copying import copy_cache
from pea.cache.manifest import carry_cards, read_manifest
from pea.cache.publication import newest
from pea.cache.tar_changes import retire_tar
from pea.config import Config
from pea.corpus.tars import tar_identity
from pea.errors import CacheError, CorpusError
from pea.storage.location import Location
from stages.cluster.planning import plan_corpora
from stages.cluster.session import RaySession
from stages.command.console import Console
from tests.cache_helpers import CacheMaker, identity

pytestmark = pytest.mark.slow

CARD: dict[str, Any] = {
    "format": "pea-corpus-card",
    "format_version": 1,
    "title": "Cats <b>\x1b[31m",
    "licence": "CC-BY-4.0",
    "source": "https://example.org",
    "num_tars": 2,
    "num_bytes": 10,
    "num_samples": 9,
    "num_usable": 8,
    "languages": {"en": 8, "zh": 7},
    "left_out": {"image_empty": 1},
    **dict.fromkeys(("tars_sha256", "markdown_sha256", "html_sha256"), "0" * 64),
}


def test_a_card_changes_nothing_but_the_manifest(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache.fill(identity())
    before = read_manifest(cache.directory)
    assert '"cards"' not in before.to_json()
    for _ in range(2):
        carry_cards(cache.directory, [CARD])
    after = read_manifest(cache.directory)
    assert after.cards == (CARD,) and (after.identity, after.parts) == (before.identity, before.parts)
    assert newest(cache.directory, "manifest") == 1
    opened = Cache.open(cache.directory)
    assert opened.identity.digest == before.identity.digest and opened.num_samples == cache.num_samples
    grown = Cache.create_or_resume(cache.directory, identity(["a", "b", "c"]), extend=True)
    assert grown.manifest.cards == (CARD,)
    retire_tar(cache.directory, "c")
    retire_tar(cache.directory, "b")
    assert read_manifest(cache.directory).cards == (CARD,)
    copy_cache(cache.directory, Location.parse(tmp_path / "copy"), languages=["zh"])
    assert read_manifest(tmp_path / "copy").cards == (CARD,)


def test_it_is_shown_without_harm(make_cache: CacheMaker, tiny_sdxl: Config, tmp_path: Path) -> None:
    cache = make_cache.fill(identity())
    carry_cards(cache.directory, [CARD])
    assert collect(cache.directory)["cards"] == [CARD]
    said = "Cats <b>\\x1b[31m; licence: CC-BY-4.0; source: https://example.org"
    assert f"corpus     {said}; 8 of 9 samples usable, in 2 tars; en 8, zh 7\n" in render(collect(cache.directory))
    copy = Location.parse(tmp_path / "culture")
    copy_cache(Location.parse(tiny_sdxl.cache_dir("culture")), copy)
    carry_cards(copy, [CARD])
    export(copy, tmp_path / "page.html", num_samples=1, seed=0, checkpoint=None)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Cats &lt;b&gt;" in page and "\x1b" not in page and "licence: CC-BY-4.0" in page


@pytest.mark.parametrize(
    "cards",
    [
        [{**CARD, "title": "x" * 201}],
        [{**CARD, "source": "x" * 2001}],
        [{**CARD, "num_samples": -1}],
        [{**CARD, "languages": {"en": "many"}}],
        [{**CARD, "script": "x"}],
        [{**CARD, "html_sha256": "none"}],
        [CARD] * (MOST_CARDS + 1),
    ],
)
def test_what_strangers_may_not_say(make_cache: CacheMaker, cards: list[dict[str, Any]]) -> None:
    cache = make_cache.fill(identity())
    with pytest.raises(CacheError, match=r"this cannot be cached; got manifest\.cards"):
        carry_cards(cache.directory, cards)


def test_a_card_is_read_or_is_none(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    assert read_card(folder) is None
    for text in ("no json", "[]", '{"format": "of somebody else"}', "[" * 10_000, " " * (300 << 10)):
        (tmp_path / FILE_NAME).write_text(text)
        assert read_card(folder) is None
    (tmp_path / FILE_NAME).write_text(json.dumps(CARD))
    assert read_card(folder) == CARD
    (tmp_path / FILE_NAME).write_text(json.dumps({**CARD, "num_tars": "two"}))
    with pytest.raises(CorpusError, match=r"the card of the corpus is damaged; got card\.json\.num_tars"):
        read_card(folder)


def test_planning_carries_the_card_beside_the_tars(
    fresh_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    for path in Path(fresh_run.corpora.parallel.tars[0]).parent.glob("parallel-*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    parallel = fresh_run.corpora.parallel.model_copy(update={"tars": (str(folder / "*.tar"),)})
    config = fresh_run.model_copy(
        update={"corpora": fresh_run.corpora.model_copy(update={"parallel": parallel, "culture": None})}
    )

    def carried(card: dict[str, Any]) -> list[Any]:
        (folder / FILE_NAME).write_text(json.dumps(card))
        plan_corpora(config, ["parallel"], RaySession(config.cache.run), Console())
        return list(read_manifest(config.cache_dir("parallel")).cards)

    fitting = {**CARD, "tars_sha256": digest_of_tars(tar_identity(each).sha256 for each in folder.glob("*.tar"))}
    assert carried(CARD) == [] and "is of other tars, and not carried" in capsys.readouterr().out
    assert carried(fitting) == [fitting]
    assert carried({**fitting, "licence": "another"})[0]["licence"] == "another"
