"""What this machine has free for a run: memory within its control group, the GPU's, and disk; asked without torch."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from settings import child_environment
from store import files, quota
from training.events import PROCESS

GPU_S = 5.0
"""How long an answer of the GPU's is good for."""
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Room:
    """Bytes that a run may take."""

    memory: int
    disk: int
    gpu: int = 0
    """Free memory of the first GPU that is visible; 0 where there is none."""
    gpu_name: str = ""
    processor: tuple[str, ...] = ()
    """What the processor can do: the flags of its first core."""

    @property
    def device(self) -> str:
        """Where a run computes: cuda or cpu."""
        return "cuda" if self.gpu else "cpu"

    @property
    def bfloat16(self) -> bool:
        """Whether it computes in bfloat16."""
        return bool(self.gpu) or bool({"avx512_bf16", "amx_bf16"} & set(self.processor))


def measure(home: Path, running: Iterable[Path] = ()) -> Room:
    """What is free now. What the runs in the folders `running` hold is free when it is the next one's turn."""
    held = sum(_resident(folder) for folder in running)
    name, gpu = _gpu(int(time.monotonic() / GPU_S)) if _built_for_gpu() else ("", 0)
    return Room(quota.free_memory() + held, quota.free_disk(home), gpu, name, _flags())


def _resident(folder: Path) -> int:
    """Memory that the process of a run holds for itself; 0 where it has none."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        pid = int(files.read_json(folder / PROCESS)["pid"])
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()
        return (int(pages[1]) - int(pages[2])) * 4096
    return 0


@lru_cache(maxsize=1)
def _built_for_gpu() -> bool:
    """Whether the torch that is installed could use a GPU."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return not importlib.metadata.version("torch").endswith("+cpu")
    return False


@lru_cache(maxsize=1)
def _gpu(moment: int) -> tuple[str, int]:
    """Name and free bytes of the GPU that torch would take; `moment` makes an old answer be asked anew."""
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
def _flags() -> tuple[str, ...]:
    lines = files.read_if_there(Path("/proc/cpuinfo")).splitlines()
    return tuple(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())
