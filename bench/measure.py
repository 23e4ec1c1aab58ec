"""Measuring: children with their time and peak memory, contenders in alternating rounds, ratios of rounds, the machine.

Imports nothing large: the kernel counts what a process held before it became another program, so the peak memory of a
child is never below that of the process that started it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from settings import REPOSITORY, child_environment

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "datasets", "pyarrow", "numpy", "gradio")

RUN = (
    sys.executable, "-c",
    "import sys; from pathlib import Path; from training.runs.child import work; sys.exit(work(Path(sys.argv[1])))",
)  # fmt: skip
"""A training run as its own process, neither queued nor niced; its folder, with a config.json, comes behind it."""


@dataclass(frozen=True)
class Child:
    """A process that has ended well."""

    seconds: float
    processor_seconds: float
    """Of all its threads, and of its own children."""
    peak_bytes: int
    """Most resident memory of it, or of one of its own children."""
    output: str


@dataclass(frozen=True)
class Ratio:
    """How one contender's figures relate to another's, round by round."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def run_child(command: Sequence[str], **environment: str) -> Child:
    """Run a command in the repository and measure it; raises `RuntimeError` with its last lines where it fails."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            list(command), cwd=REPOSITORY, env=child_environment(**environment), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{text[-2000:]}")
    return Child(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """One figure of each contender in every round; a slow minute of the machine meets all of them.

    Every second round goes backwards, so that none always follows the same other.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            figures[name].append(contenders[name]())
    return figures


def ratio(figures: Sequence[float], others: Sequence[float]) -> Ratio:
    """`figures` over `others`: the ratio within each round, its median, least and most."""
    ratios = [one / other for one, other in zip(figures, others, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gb": round(memory / 1e9, 1),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu() -> str:
    """The GPUs as their driver names them; empty where there is none. Asked of a child, as torch would be large."""
    tool = shutil.which("nvidia-smi")
    query = "--query-gpu=name,memory.total,driver_version"
    asked = subprocess.run([tool, query, "--format=csv,noheader"], capture_output=True, text=True) if tool else None
    return "; ".join(asked.stdout.split("\n")).strip("; ") if asked and not asked.returncode else ""
