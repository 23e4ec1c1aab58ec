"""Measure the memory, GPU memory and disk that are free for a run, without torch."""

from __future__ import annotations

import importlib.metadata
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

from settings import child_environment
from store import files, quota
from training.events import PROCESS

GPU_S = 5.0
"""Seconds for which the free memory of the GPU is cached."""
MEGABYTE = 1 << 20
CPU_FACTS = Path("/proc/cpuinfo")
"""Name and instruction sets of the processor, neither of which psutil has."""


@dataclass(frozen=True)
class FreeResources:
    """Bytes that a run may take."""

    memory: int
    disk: int
    gpu: int = 0
    """Free memory of the first visible GPU; 0 where there is none."""
    gpu_name: str = ""
    cpu_flags: tuple[str, ...] = ()
    """Instruction sets of the processor."""

    @property
    def bfloat16(self) -> bool:
        """Return whether the device computes in bfloat16."""
        return bool(self.gpu) or bool({"avx512_bf16", "amx_bf16"} & set(self.cpu_flags))


def measure(home: Path, running: Iterable[Path] = ()) -> FreeResources:
    """Return the free resources; memory of the runs in the folders `running` counts, as they end before the next."""
    held = sum(_resident(folder) for folder in running)
    name, gpu = _gpu(int(time.monotonic() / GPU_S))
    return FreeResources(quota.free_memory() + held, quota.free_disk(home), gpu, name, processor()[1])


def _resident(folder: Path) -> int:
    """Return the bytes that a run's process holds and shares with no other; 0 where there is no such process."""
    with suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        held = psutil.Process(int(files.read_json(folder / PROCESS)["pid"])).memory_info()
        return int(held.rss - held.shared)
    return 0


@lru_cache(maxsize=1)
def _gpu(tick: int) -> tuple[str, int]:
    """Return name and free bytes of the GPU that torch would use; cached until `tick` changes."""
    visible = child_environment().get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if not tool or visible in ("", "-1"):
        return "", 0
    query = [tool, "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    chosen = ["-i", visible.split(",")[0]] if visible else []
    errors = (OSError, subprocess.SubprocessError, ValueError, IndexError, importlib.metadata.PackageNotFoundError)
    with suppress(*errors):
        if importlib.metadata.version("torch").endswith("+cpu"):
            return "", 0
        printed = subprocess.run([*query, *chosen], capture_output=True, text=True, timeout=10)
        name, _, free = printed.stdout.splitlines()[0].rpartition(",")
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
