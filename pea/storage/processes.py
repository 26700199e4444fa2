"""Which process something is, in words that another process, on this machine or another, can judge."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class ProcessName(BaseModel):
    """A process: where it runs, its number, and what tells it from a later one with the same number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    host: str = Field(max_length=255)
    """Name of the machine, for people."""
    machine: str = Field(max_length=255)
    """The machine since its last start, and the process numbers' name space (containers); empty: unknown."""
    pid: int = Field(ge=0)
    """Number of the process there."""
    started: str = Field(max_length=64)
    """When it started, in the machine's own count; empty: unknown."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> ProcessName:
    """The process that asks."""
    pid = os.getpid()
    return ProcessName(host=socket.gethostname()[:255], machine=_machine(), pid=pid, started=_started(pid) or "")


def is_certainly_dead(process: ProcessName) -> bool:
    """Whether a process ran on this machine and has ended; false wherever that cannot be told from here."""
    if not process.machine or process.machine != _machine() or not process.started:
        return False
    return _started(process.pid) != process.started


def _machine() -> str:
    """Start of the machine and name space of process numbers; empty where the system tells neither."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a living process of this machine started; None: it has ended, even if nobody has noticed yet."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return None if fields[0] in "ZX" else fields[19]
