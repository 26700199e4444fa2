"""The interposing library sees every storage operation below a folder, and does to it what it is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.control import ControlFile, Fault, Op
from tests.faults.interposer import library, reason_to_skip
from tests.faults.native_programs import NATIVE
from tests.faults.programs import run_program

pytestmark = [pytest.mark.slow, pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))]

EVERYTHING = """
import ctypes, mmap, os, shutil, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("a/b"); open("a/x", "wb").write(b"hello"); os.rename("a/x", "a/b/y"); os.link("a/b/y", "z")
shutil.copyfile("z", "copy")
f = os.open("copy", os.O_RDWR)
os.fsync(f); os.fdatasync(f); os.pwrite(f, b"XX", 1); os.truncate("copy", 4); os.ftruncate(f, 3)
os.writev(f, [b"a", b"b"])
os.pwritev(f, [b"c", b"d"], 6)
m = mmap.mmap(f, 4); m[0:1] = b"Q"; m.flush(); m[1:2] = b"W"; m.close()
os.posix_fallocate(f, 0, 10)
os.symlink("z", "s"); open("s", "ab").write(b"tail")
here = os.open(".", os.O_RDONLY)
os.mkdir("d", dir_fd=here); os.rename("s", "d/s", src_dir_fd=here, dst_dir_fd=here); os.link("z", "z2", dst_dir_fd=here)
os.unlink("z2", dir_fd=here); os.rmdir("a/../d2") if os.path.exists("d2") else None
f2 = os.open("copied", os.O_CREAT | os.O_WRONLY); os.copy_file_range(os.open("z", os.O_RDONLY), f2, 3)
stream = libc.fopen; stream.restype = ctypes.c_void_p
file = ctypes.c_void_p(stream(b"stdio", b"w")); libc.fputs(b"from stdio", file); libc.fclose(file)
RENAMEAT2 = 316  # on x86-64
libc.syscall(RENAMEAT2, -100, b"stdio", -100, b"stdio2", 0)
shutil.rmtree("a")
subprocess.run(["sh", "-c", "echo child > t; mv t t2"], check=True)
threads = [threading.Thread(target=lambda n=n: open(f"thread{n}", "w").write("x" * n)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
"""


@pytest.fixture(scope="module")
def sees_raw_calls(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether this machine lets calls around libc be seen."""
    return run_program("open('a', 'w')", tmp_path_factory.mktemp("raw")).control.sees_raw_calls


def test_every_way_to_change_a_folder_is_seen(tmp_path: Path, sees_raw_calls: bool) -> None:
    """A replay of the log gives the folder, byte for byte: nothing was missed."""
    if not sees_raw_calls:
        pytest.skip("calls around libc are seen on x86-64, where seccomp is allowed")
    ran = run_program(EVERYTHING, tmp_path)
    assert ran.status == 0, ran.output
    assert ran.disk.now() == ran.tree
    assert ran.tree["stdio2"] == b"from stdio" and ran.tree["t2"] == b"child\n" and ran.tree["thread3"] == b"xxx"
    assert {operation.op for operation in ran.operations} == {op for op in Op if op < Op.OPEN_READ}
    numbers = [operation.number for operation in ran.operations]
    assert numbers == list(range(1, ran.control.count + 1)), "threads and child processes share one counter"
    assert len({operation.process for operation in ran.operations}) >= 2


def test_nothing_outside_the_folder_is_counted(tmp_path: Path) -> None:
    code = "open('../outside', 'w').write('x'); open('/dev/null', 'w').write('x'); open('inside', 'w').close()"
    ran = run_program(code, tmp_path)
    assert ran.texts == ["open inside"]


def test_a_link_does_not_lead_past_the_library(tmp_path: Path) -> None:
    (tmp_path / "side").symlink_to(tmp_path / "watched")
    ran = run_program(f"open({str(tmp_path / 'side' / 'f')!r}, 'w').write('x')", tmp_path)
    assert ran.texts == ["open f", "write f"]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_killed_before_the_nth_operation(tmp_path: Path, at: int) -> None:
    code = "import os\nos.mkdir('1')\nos.mkdir('2')\nos.mkdir('3')"
    ran = run_program(code, tmp_path, Fault("kill", at))
    assert sorted(ran.tree) == ["1", "2", "3"][: at - 1]
    assert ran.status == (0 if at == 4 else -9)
    hit = ran.control.hit
    assert (hit and hit.number) == (None if at == 4 else at)


def test_a_kill_ends_children_too(tmp_path: Path) -> None:
    """The parent has no say: the whole command ends at once."""
    code = "import subprocess, os\nsubprocess.run(['sh', '-c', 'mkdir 1; mkdir 2'])\nos.mkdir('parent')"
    ran = run_program(code, tmp_path, Fault("kill", 2))
    assert ran.status == -9 and list(ran.tree) == ["1"]


def test_one_failure_and_lasting_ones(tmp_path: Path) -> None:
    code = """
import os
for name in "abcd":
    try: os.mkdir(name)
    except OSError as error: print(name, error.strerror)
os.rmdir("a")
"""
    once = run_program(code, tmp_path / "once", Fault("fail", 2, "ENOSPC"))
    assert once.status == 0 and sorted(once.tree) == ["c", "d"], once.output
    assert once.output == "b No space left on device\n"
    full = run_program(code, tmp_path / "lasting", Fault("fail", 2, "ENOSPC", lasting=True))
    assert full.status == 0 and full.tree == {}, "removing works on a full disk"
    assert full.output.count("No space left") == 3


@pytest.mark.parametrize(("part", "expected"), [(0, b"0"), (128, b"01234"), (255, b"012345678")])
def test_torn_and_short_writes(tmp_path: Path, part: int, expected: bytes) -> None:
    code = "import os\nf = os.open('f', os.O_CREAT | os.O_WRONLY)\nprint(os.write(f, b'0123456789'))"
    torn = run_program(code, tmp_path / "torn", Fault("tear", 2, part=part))
    assert torn.status == -9 and torn.tree == {"f": expected} and torn.disk.now() == torn.tree
    short = run_program(code, tmp_path / "short", Fault("short", 2, part=part))
    assert short.status == 0 and short.tree == {"f": expected} and short.output == f"{len(expected)}\n"


def test_reads_fail_where_they_are_counted(tmp_path: Path) -> None:
    code = "import os\nprint(os.listdir('.'))\nprint(open('f').read())"
    ran = run_program(code, tmp_path, Fault("fail", 3, "EIO", reads=True), before={"f": b"data"})
    assert ran.status == 1 and "Input/output error" in ran.output
    hit = ran.control.hit
    assert hit is not None and hit.op is Op.READ and hit.path.endswith("/f")


def test_what_a_mapping_holds_at_the_end_is_missed_and_noticed(tmp_path: Path) -> None:
    """The one way to write that stays unseen shows as a difference between the replay and the folder."""
    code = """
import mmap, os
f = os.open("f", os.O_CREAT | os.O_RDWR); os.ftruncate(f, 3)
m = mmap.mmap(f, 3); m[:] = b"abc"; os._exit(0)
"""
    ran = run_program(code, tmp_path)
    assert ran.tree == {"f": b"abc"} and ran.disk.now() == {"f": bytes(3)}


@pytest.mark.parametrize("name", NATIVE)
def test_native_writers_are_seen(tmp_path: Path, sees_raw_calls: bool, name: str) -> None:
    """Libraries that write below Python: a replay of the log gives every byte that they wrote."""
    if name == "safetensors" and not sees_raw_calls:
        pytest.skip("safetensors renames around libc; that is seen on x86-64, where seccomp is allowed")
    pytest.importorskip(name.removeprefix("zarr_"))
    ran = run_program(NATIVE[name], tmp_path, packages=True)
    assert ran.status == 0, ran.output
    assert sum(len(content) for content in ran.tree.values() if isinstance(content, bytes)) > 150
    assert ran.disk.now() == ran.tree
    written = sum(len(operation.data) for operation in ran.operations if operation.op is Op.WRITE)
    assert written >= sum(len(content) for content in ran.tree.values() if isinstance(content, bytes)) // 2


def test_native_readers_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    reading = """
import tensorstore
spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": "zarr/"}, "fill_missing_data_reads": False}
try: print(tensorstore.open(spec).result().read().result().sum())
except Exception as error: print("refused", type(error).__name__)
"""
    never = Fault("fail", 10**9, reads=True)
    ran = run_program(NATIVE["zarr"] + reading, tmp_path / "whole", never, packages=True)
    assert ran.output == f"{float(sum(range(512)))}\n"
    done = [operation for operation in ran.operations if operation.path.startswith("zarr/")]
    opened = {operation.path for operation in done if operation.op is Op.OPEN_READ}
    assert {"zarr/zarr.json", "zarr/c/0/0", "zarr/c/1/0"} <= opened
    assert {operation.path for operation in done if operation.op is Op.READ} >= opened
    number = done[-1].number
    last = Fault("fail", number, "EIO", reads=True)
    failed = run_program(NATIVE["zarr"] + reading, tmp_path / "failed", last, packages=True)
    assert failed.output.startswith("refused"), failed.output


TRACED = "openat,open,creat,write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,rename,renameat,renameat2"
TRACED += ",link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,copy_file_range,sendfile"
OP_OF = {
    "fsync": Op.SYNC,
    "fdatasync": Op.SYNC,
    "rename": Op.RENAME,
    "link": Op.LINK,
    "unlink": Op.UNLINK,
    "mkdir": Op.MKDIR,
    "write": Op.WRITE,
    "pwrite": Op.WRITE,
}
"""Calls, without what tells their variants apart -> the operation."""


@pytest.mark.parametrize("name", NATIVE)
def test_the_kernel_sees_no_more_than_the_log(tmp_path: Path, sees_raw_calls: bool, name: str) -> None:
    """As many calls of each kind below the folder as strace counts without the library, fsync included."""
    if shutil.which("strace") is None or not sees_raw_calls:
        pytest.skip("takes strace, and seeing calls around libc")
    pytest.importorskip(name.removeprefix("zarr_"))
    ran = run_program(NATIVE[name], tmp_path / "ran", packages=True)
    folder, log = tmp_path / "traced", tmp_path / "log"
    folder.mkdir()
    options = ["-f", "-y", "-qq", "-o", str(log), "-e", f"trace={TRACED}"]
    command = ["strace", *options, sys.executable, "-c", NATIVE[name]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr:
        pytest.skip("strace is not allowed here")
    assert done.returncode == 0, done.stderr
    counted = _calls_below(folder, log.read_text(errors="replace"))
    logged = Counter(operation.op for operation in ran.operations if operation.done)
    assert counted and {op: logged[op] for op in OP_OF.values()} == {op: counted[op] for op in OP_OF.values()}


def _calls_below(folder: Path, log: str) -> Counter[Op | None]:
    """What strace saw to succeed; a call that another thread's interrupts in the log ends on a line of its own."""
    counted, begun = Counter[Op | None](), dict[str, str]()
    for line in log.splitlines():
        thread = line.split(" ", 1)[0]
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        below = call and (str(folder) in line or re.match(r'(AT_FDCWD[^,]*, )?"[^/]', call[2]))
        name = call[1] if call and below else begun.pop(thread, None) if " resumed>" in line else None
        if name and "<unfinished" in line:
            begun[thread] = name
        elif name and " = -1 " not in line:
            counted[OP_OF.get(name.rstrip("at64v2"))] += 1
    return counted


def test_the_log_that_does_not_fit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.control._LOG_BYTES", 4096)
    ran = run_program("open('f', 'wb').write(bytes(5000))", tmp_path)
    with pytest.raises(OverflowError, match="full"):
        list(ran.control.operations())


def test_the_library_is_compiled_once(tmp_path: Path) -> None:
    assert library() is library() and library().stat().st_size > 1000
    control = ControlFile(tmp_path / "control", tmp_path)
    assert control.count == 0 and list(control.operations()) == [] and control.hit is None
