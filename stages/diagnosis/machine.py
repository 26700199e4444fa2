"""What this machine computes with: devices, number formats, threads, memory, a compiler."""

from __future__ import annotations

import os
import resource
import shutil
import sysconfig
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pea.config import Config
from pea.errors import DeviceError
from pea.plurals import count_of
from stages.diagnosis.finding import Finding

_DTYPES = ("float32", "bfloat16", "float16")
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}
_SLOW = 3.0
"""Times slower than float32 from which on a number format is not worth it."""
_GIB = 1 << 30
_LEAST_OPEN_FILES = 1024
_LEAST_SHARED_BYTES = 256 << 20
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_CGROUP = Path("/sys/fs/cgroup")


def look_at_machine(config: Config | None) -> Iterator[Finding]:
    """Everything but folders and clusters."""
    yield from _threads()
    yield from _memory()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a driver that does not fit is a finding below
            import torch
    except (ImportError, OSError) as error:
        got = " ".join(str(error).split())
        yield Finding("torch", "problem", f"cannot be loaded: {got}", "Install torch anew, as its own page says.")
        return
    yield from _devices(torch, config)
    yield from _compiler(torch, config)


def num_cpus() -> float:
    """CPUs that this process may use: those it is bound to, or what its container grants."""
    bound = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return min(bound, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return bound


def _threads() -> Iterator[Finding]:
    cpus, told = num_cpus(), os.environ.get("OMP_NUM_THREADS", "")
    what = f"{os.cpu_count()} in the machine, {cpus:g} for this process"
    if told.isdigit() and int(told) > max(1, cpus):
        yield Finding("cpus", "warning", f"{what}, but OMP_NUM_THREADS asks for more threads", "Lower or unset it.")
    elif not told and (os.cpu_count() or 1) > cpus:
        remedy = f"Set OMP_NUM_THREADS={max(1, int(cpus))}: libraries start one thread per CPU of the machine."
        yield Finding("cpus", "warning", what, remedy)
    else:
        yield Finding("cpus", "ok", what)


def _memory() -> Iterator[Finding]:
    free, limit = _available_bytes(), _container_bytes()
    if free is not None:
        granted = "" if limit is None else f", the container may use {limit / _GIB:.1f} GiB"
        yield Finding("memory", "ok", f"{free / _GIB:.1f} GiB available{granted}")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _LEAST_OPEN_FILES:
        yield Finding("open files", "warning", f"at most {files}", f"ulimit -n {_LEAST_OPEN_FILES * 4}")
    if _SHARED_MEMORY.is_dir() and (size := shutil.disk_usage(_SHARED_MEMORY).total) < _LEAST_SHARED_BYTES:
        remedy = "Ray's processes share it: start the container with --shm-size=1g."
        yield Finding("shared memory", "warning", f"only {size >> 20} MiB in {_SHARED_MEMORY}", remedy)


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return None


def _container_bytes() -> int | None:
    try:
        return int((_CGROUP / "memory.max").read_text())
    except (OSError, ValueError):
        return None


def _devices(torch: Any, config: Config | None) -> Iterator[Finding]:
    found = [torch.device("cpu")]
    if torch.cuda.is_available():
        found += [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    elif torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    trains_on = "cpu" if config is not None and config.train.device == "cpu" else found[-1].type
    for device in found:
        yield _formats(torch, device, config if device.type == trains_on else None)
    yield from _missing_gpu(torch, config)


def _formats(torch: Any, device: Any, config: Config | None) -> Finding:
    """What a device is, and which number formats work on it; ``config``: of a training on it."""
    times, broken = {}, {}
    for name in _DTYPES:
        try:
            times[name] = _pass_seconds(torch, device, getattr(torch, name))
        except (RuntimeError, NotImplementedError, TypeError) as error:
            broken[name] = " ".join(str(error).split())[:100]
    said = []
    for name, seconds in times.items():
        slower = seconds / max(times.get("float32", seconds), 1e-9)
        said.append(f"{name} works" + (f" ({slower:.0f}x slower than float32)" if slower > _SLOW else ""))
    said += [f"{name} does not ({why})" for name, why in broken.items()]
    topic, what = str(device), f"{_device_name(torch, device)}: {', '.join(said)}"
    wanted = "float32" if config is None else _PRECISIONS.get(config.train.precision, "float32")
    if wanted in broken:
        remedy = "Set train.precision to one that works." if wanted != "float32" else "Repair the driver or torch."
        return Finding(topic, "problem", what, remedy)
    if times[wanted] > _SLOW * times.get("float32", times[wanted]):
        return Finding(topic, "warning", what, "train.precision=no is quicker here.")
    return Finding(topic, "ok", what)


def _pass_seconds(torch: Any, device: Any, dtype: Any) -> float:
    """Time of a small forward and backward pass of what a UNet is made of: the best of three.

    Raises:
        RuntimeError: it does not work, or its gradients are not finite.
    """
    image = torch.full((2, 32, 16, 16), 0.1, device=device, dtype=dtype, requires_grad=True)
    kernel = torch.full((64, 32, 3, 3), 0.01, device=device, dtype=dtype, requires_grad=True)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        hidden = torch.nn.functional.conv2d(image, kernel, padding=1).flatten(2).transpose(1, 2)
        hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
        attended = torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden)
        gradient = torch.autograd.grad(torch.nn.functional.gelu(attended @ hidden.mT).float().mean(), kernel)[0]
        finite = bool(torch.isfinite(gradient).all())  # waits for the device
        best = min(best, time.perf_counter() - started)
        if not finite:
            raise RuntimeError("gradients are not finite")
    return best


def _device_name(torch: Any, device: Any) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        free = torch.cuda.mem_get_info(device)[0]
        memory = f"{free / _GIB:.0f} of {properties.total_memory / _GIB:.0f} GiB free"
        return f"{properties.name}, {memory}, capability {properties.major}.{properties.minor}"
    return "Apple GPU" if device.type == "mps" else f"{count_of(torch.get_num_threads(), 'thread')} of torch"


def _missing_gpu(torch: Any, config: Config | None) -> Iterator[Finding]:
    if torch.cuda.is_available():
        return
    has_driver = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    if has_driver and torch.version.cuda is None:
        what = "this machine has an NVIDIA driver, but torch was built without CUDA"
        yield Finding("cuda", "warning", what, "Install a build of torch with CUDA.")
    elif torch.version.cuda is not None:
        what = f"torch was built for CUDA {torch.version.cuda}, and sees no GPU"
        yield Finding("cuda", "warning", what, "Look at `nvidia-smi`, the driver, and CUDA_VISIBLE_DEVICES.")
    if config is not None and config.cache.run.device.startswith("cuda") and not _has_cluster(config):
        what = f"cache.run.device={config.cache.run.device}, and there is no GPU here"
        yield Finding("cuda", "problem", what, "Use `auto`, or join a cluster (cache.run.ray_address).")


def _has_cluster(config: Config) -> bool:
    return bool(config.cache.run.ray_address or os.environ.get("RAY_ADDRESS"))


def _compiler(torch: Any, config: Config | None) -> Iterator[Finding]:
    if config is not None and config.cache.run.compile:
        from pea.models.compiling import check_compiler

        device = torch.device("cuda" if torch.cuda.is_available() and config.cache.run.device != "cpu" else "cpu")
        try:
            check_compiler(device)
        except DeviceError as error:
            yield Finding("compiler", "problem", str(error))
        else:
            yield Finding("compiler", "ok", f"torch.compile works on {device.type}")
        return
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if compiler and headers:
        yield Finding("compiler", "ok", f"{compiler}, with Python's headers; cache.run.compile can be used")
        return
    missing = [name for name, there in (("C++ compiler", compiler), ("Python headers", headers)) if not there]
    remedy = "Only cache.run.compile needs them: install g++ and python3-dev to use it."
    yield Finding("compiler", "note", f"no {' and no '.join(missing)}", remedy)
