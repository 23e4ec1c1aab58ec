"""Free resources of this machine, for a run: memory within its control group, the GPU's, and disk; without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from models import memory_use
from settings import child_environment
from store import files
from training.events import PROCESS

GPU_S = 5.0
"""Seconds for which an answer of the GPU's is kept."""
MEGABYTE = 1 << 20
CPU_FACTS = Path("/proc/cpuinfo")
"""Name and instruction sets of the processor, neither of which psutil has."""


@dataclass(frozen=True)
class FreeResources:
    """Bytes that a run may take, and the device that it computes on."""

    memory: int
    disk: int
    gpu: int = 0
    """Free memory of the first visible GPU; 0 where there is none."""
    gpu_name: str = ""
    cpu_flags: tuple[str, ...] = ()
    """Instruction sets of the processor."""

    @property
    def device(self) -> str:
        """Return cuda or cpu."""
        return "cuda" if self.gpu else "cpu"

    @property
    def bfloat16(self) -> bool:
        """Return whether the device computes in bfloat16."""
        return bool(self.gpu) or bool({"avx512_bf16", "amx_bf16"} & set(self.cpu_flags))


def measure(home: Path, running: Iterable[Path] = ()) -> FreeResources:
    """Return what is free, counting the memory of the runs in the folders `running`, which end before the next one."""
    held = sum(_resident(folder) for folder in running)
    name, gpu = _gpu(int(time.monotonic() / GPU_S)) if _built_for_gpu() else ("", 0)
    there = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    return FreeResources(memory_use.free() + held, shutil.disk_usage(there).free, gpu, name, processor()[1])


def _resident(folder: Path) -> int:
    """Bytes that a run's process holds for itself; 0 where there is no such process."""
    with suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        held = psutil.Process(int(files.read_json(folder / PROCESS)["pid"])).memory_info()
        return int(held.rss - held.shared)
    return 0


@lru_cache(maxsize=1)
def _built_for_gpu() -> bool:
    """Return whether the installed torch could use a GPU."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return not importlib.metadata.version("torch").endswith("+cpu")
    return False


@lru_cache(maxsize=1)
def _gpu(moment: int) -> tuple[str, int]:
    """Return name and free bytes of the GPU that torch would take, asked again for each `moment`."""
    visible = child_environment().get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if not tool or visible in ("", "-1"):
        return "", 0
    query = [tool, "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    chosen = ["-i", visible.split(",")[0]] if visible else []
    with suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        asked = subprocess.run([*query, *chosen], capture_output=True, text=True, timeout=10)
        name, _, free = asked.stdout.splitlines()[0].rpartition(",")
        return name.strip(), int(free) * MEGABYTE
    return "", 0


@lru_cache(maxsize=1)
def processor() -> tuple[str, tuple[str, ...]]:
    """Return the name of the processor and its instruction sets."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
        facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return facts.get("model name") or platform.machine(), tuple(facts.get("flags", "").split())


def identity() -> str:
    """Return the processor and the number of cores, on which the speed of a run depends."""
    return f"{processor()[0]} x{len(os.sched_getaffinity(0))}"
