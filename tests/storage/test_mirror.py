"""A folder in a store and its copy: what goes where, in which order, and what never gets lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.errors import LocationError
from pea.storage import Location, mirror, work
from pea.storage.mirror import Mirror
from pea.storage.work import fetched, folder_for, work_folder


@pytest.fixture
def remote(bucket: Location) -> Location:
    return bucket / "run"


def here(mirror: Mirror) -> dict[str, str]:
    files = (path for path in mirror.folder.rglob("*") if path.is_file())
    return {path.relative_to(mirror.folder).as_posix(): path.read_text() for path in files}


def there(remote: Location) -> dict[str, str]:
    return {entry.name: (remote / entry.name).read_text() for entry in remote.entries(recursive=True)}


def write(mirror: Mirror, **files: str | None) -> None:
    for name, text in files.items():
        path = mirror.folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if text is None else path.write_text(text)


def test_there_and_on_to_another_machine(remote: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (remote / "cache/parallel/manifest.json").write_text("left out")
    one = Mirror(remote, tmp_path / "one", left_out=("cache",))
    assert one.fetch() == 0 and here(one) == {}
    write(one, log_txt="1", adapter__states__step__state_json="{}", cache__x="not kept", run_0_lease="not kept")
    assert one.publish() == 2
    sent: list[str] = []
    really = mirror.copy_file
    monkeypatch.setattr(mirror, "copy_file", lambda a, b: (sent.append(b.name), really(a, b))[1])
    assert one.publish() == 0 and sent == []
    write(one, log_txt="1")  # the same again
    assert one.publish() == 0 and sent == []
    two = Mirror(remote, tmp_path / "two", left_out=("cache",))
    assert two.fetch() == 2 and here(two) == {"log.txt": "1", "adapter/states/step/state.json": "{}"}
    write(two, log_txt="12", adapter__states__step__state_json=None)
    assert two.publish() == 1
    assert there(remote) == {"log.txt": "12", "cache/parallel/manifest.json": "left out"}
    write(one, mine_txt="never published")
    assert one.fetch() == 1, "somebody else has written since: what was not published goes"
    assert here(one) == {"log.txt": "12", "cache/x": "not kept", "run.0.lease": "not kept"}


def test_what_was_not_published_stays_where_nobody_else_has_written(remote: Location, tmp_path: Path) -> None:
    one = Mirror(remote, tmp_path / "one")
    one.fetch()
    write(one, a_txt="1", b_txt="2")
    one.publish()
    write(one, a_txt="11", c_txt="3")
    assert one.fetch() == 0 and here(one) == {"a.txt": "11", "b.txt": "2", "c.txt": "3"}
    one.publish()
    assert there(remote) == here(one)


def test_a_cleaned_work_folder_deletes_nothing_in_the_store(remote: Location, tmp_path: Path) -> None:
    one = Mirror(remote, tmp_path / "one")
    one.fetch()
    write(one, a_txt="1", b_txt="2")
    one.publish()
    write(one, a_txt=None, b_txt="22")
    one.fetch()
    assert here(one) == {"a.txt": "1", "b.txt": "2"}
    one.publish()
    assert there(remote) == {"a.txt": "1", "b.txt": "2"}


@pytest.mark.slow
def test_nothing_looks_finished_that_is_not(remote: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Mirror(remote, tmp_path / "one")
    one.fetch()
    write(one, adapter__config_json="{}", adapter__weights_safetensors="old")
    write(one, states__1__state_json="{}", states__1__a_safetensors="1")
    really = mirror.copy_file
    seen: list[dict[str, str]] = []

    def looks(source: Location, destination: Location) -> int:
        seen.append(there(remote))
        return really(source, destination)

    monkeypatch.setattr(mirror, "copy_file", looks)
    one.publish()
    for found in seen:
        assert "states/1/state.json" not in found or "states/1/a.safetensors" in found
        assert "adapter/config.json" not in found or "adapter/weights.safetensors" in found
    seen.clear()
    write(one, adapter__weights_safetensors="new", adapter__log_txt="1")
    one.publish()
    assert seen and all("adapter/config.json" not in found for found in seen)
    assert there(remote) == here(one)
    seen.clear()
    write(one, adapter__log_txt="2")
    one.publish()
    assert all("adapter/config.json" in found for found in seen), "a log changes nothing that the adapter is"


def test_a_publication_that_broke_off_goes_on(
    remote: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Mirror(remote, tmp_path / "one")
    one.fetch()
    write(one, a_txt="1", b_txt="2", c_txt="3")
    really = mirror.copy_file

    def breaks_off(source: Location, destination: Location) -> int:
        if destination.name == "b.txt":
            raise OSError("broken off")
        return really(source, destination)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken off"):
        patch.setattr(mirror, "copy_file", breaks_off)
        one.publish()
    one.fetch()
    assert one.publish() == 2 and there(remote) == {"a.txt": "1", "b.txt": "2", "c.txt": "3"}


def test_a_damaged_ledger_is_none(remote: Location, tmp_path: Path) -> None:
    one = Mirror(remote, tmp_path / "one")
    one.fetch()
    write(one, a_txt="1")
    one.publish()
    for text in ("", "[]", '{"a.txt": 3}', '{"a.txt": [1, 2, 3, 4]}'):
        (tmp_path / "one.ledger.json").write_text(text)
        assert one.fetch() == 1 and here(one) == {"a.txt": "1"}


def test_names_that_lead_out_are_refused(remote: Location, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (remote / "out/a.txt").write_text("1")
    with pytest.raises(LocationError):
        Mirror(remote, tmp_path / "one").fetch()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_inputs_are_fetched_once_for_each_content(
    bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))
    assert work_folder() == tmp_path / "work" != folder_for("runs", bucket)
    (bucket / "models/teacher/unet/config.json").write_text("{}")
    (bucket / "prompts.jsonl").write_text("1")
    first = fetched(bucket / "models/teacher")
    assert first.name == "teacher" and (first / "unet/config.json").read_text() == "{}"
    assert fetched(bucket / "prompts.jsonl").read_text() == "1"
    monkeypatch.setattr(work, "_FETCHED", {})  # another process
    sent: list[Location] = []
    really = work.copy_file
    monkeypatch.setattr(work, "copy_file", lambda a, b: (sent.append(a), really(a, b))[1])
    assert fetched(bucket / "models/teacher") == first and sent == []
    (bucket / "models/teacher/unet/config.json").write_text('{"changed": 1}')
    assert fetched(bucket / "models/teacher") == first, "within one process a model stays what it was"
    monkeypatch.setattr(work, "_FETCHED", {})
    second = fetched(bucket / "models/teacher")
    assert second != first and (second / "unet/config.json").read_text() == '{"changed": 1}'
    assert not fetched(bucket / "nothing").exists() and "nothing" in str(fetched(bucket / "nothing"))
    assert fetched(Location.parse(tmp_path)) == tmp_path
