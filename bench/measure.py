"""Measure contenders in alternating rounds, child processes with their time and memory, and print or save the result.

Imports nothing large: the peak memory that the kernel reports for a child is never below that of the process that
started it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from process_setup import ENVIRONMENT, RUN_ENVIRONMENT
from settings import REPOSITORY, Settings, child_environment
from training.config import TrainConfig
from training.events import CONFIG

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "datasets", "pyarrow", "numpy", "gradio")
TRAIN = "import sys; from pathlib import Path; from training.runs.child import work; sys.exit(work(Path(sys.argv[1])))"
"""Program of a training run that is neither queued nor niced; its argument is the run's folder."""

Answer = TypeVar("Answer")
Figures = Mapping[str, float]
"""Results of one measurement by name, units in the name."""
Contender = Callable[[int], Figures]
"""Measures one side, given the number of the round from 0."""
Row = dict[str, Any]
"""One line of a table by column."""


@dataclass(frozen=True)
class ProcessUsage:
    """Output and resources of a process that ended with exit status 0, its own children included."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    output: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line of the output, read as JSON."""
        return dict(json.loads(self.output.strip().splitlines()[-1]))


def parse(doc: str | None, arguments: Sequence[str], parts: Sequence[str] = (), **defaults: Any) -> argparse.Namespace:  # noqa: ANN401
    """Parse the options of a comparison: one for each default, of its type; `parts` to run, all unless named."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench NAME", description=doc, formatter_class=style)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default!r}")
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    options = parser.parse_args(arguments)
    options.parts = options.parts or list(parts)
    return options


def alternate(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Figures]]:
    """Measure each contender once a round; a slow minute of the machine meets all of them.

    Every second round goes backwards, so that none always follows the same other.
    """
    measured: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            measured[name].append(contenders[name](number))
    return measured


def summarize(
    measured: Mapping[str, Sequence[Figures]], peers: Mapping[str, str], ratios: Sequence[str] = ()
) -> list[Row]:
    """Make a row for each contender: medians, and the ratios to its peer of `ratios`, by default the first figure."""
    rows = []
    for name, rounds in measured.items():
        row: Row = {"what": name}
        for figure in rounds[0]:
            row[figure] = statistics.median(one[figure] for one in rounds)
            if figure in (ratios or [*rounds[0]][:1]):
                row[f"{figure}, x peer"] = ratio(rounds, measured[peers[name]], figure) if name in peers else ""
        rows.append(row)
    return rows


def compare_answers(
    asks: Mapping[str, Callable[[], tuple[float, list[Answer]]]],
    peers: Mapping[str, str],
    check: Callable[[str, list[Answer], list[Answer]], str],
    speed: Callable[[float, list[Answer]], Figures],
    rounds: int,
) -> tuple[list[Row], dict[str, list[Figures]]]:
    """Check each contender's answers against its peer's, which warms both up, then measure; returns rows and rounds.

    `asks` return seconds and answers; `check` raises `RuntimeError` where too few answers are the same.
    """
    answers = {name: ask()[1] for name, ask in asks.items()}
    same = {name: check(name, answers[name], answers[peer]) for name, peer in peers.items()}
    contenders = {name: partial(lambda ask, _: speed(*ask()), ask) for name, ask in asks.items()}
    measured = alternate(contenders, rounds)
    return [{**row, "same answers": same.get(row["what"], "")} for row in summarize(measured, peers)], measured


def ratio(rounds: Sequence[Figures], others: Sequence[Figures], figure: str) -> str:
    """Divide a figure by the other contender's of the same round; returns the median with the least and the most."""
    ratios = [one[figure] / other[figure] for one, other in zip(rounds, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def call_together(calls: Sequence[Callable[[], Answer]]) -> tuple[float, list[Answer]]:
    """Run each call in a thread of its own, all at once; returns the seconds until the last has ended, and results."""
    with ThreadPoolExecutor(len(calls)) as clients:
        started = time.perf_counter()
        answers = list(clients.map(lambda call: call(), calls))
        return time.perf_counter() - started, answers


def peer_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a child process without the variables that make Graft faster."""
    return {key: value for key, value in child_environment().items() if key not in ENVIRONMENT} | extra


def run_child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> ProcessUsage:
    """Run a command in the repository; raises `RuntimeError` with its last lines where it fails."""
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        child = subprocess.Popen(
            list(command),
            cwd=REPOSITORY,
            env=child_environment() if environment is None else environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read().decode("utf-8", "replace")
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{output[-2000:]}")
    return ProcessUsage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


def run_training(config: TrainConfig, home: Path) -> tuple[Path, ProcessUsage]:
    """Run a training run as a process on `home`, with this machine's bases; returns its folder and what it used."""
    link_models(home)
    (home / "runs").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=home / "runs"))
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    environment = child_environment(**RUN_ENVIRONMENT, GRAFT_HOME=str(home))
    return folder, run_child([sys.executable, "-c", TRAIN, str(folder)], environment)


def link_models(home: Path) -> None:
    """Create a home whose bases are those of this machine."""
    home.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(home / "models"):  # the link dangles where this machine has loaded no base yet
        (home / "models").symlink_to(Settings.from_env().home.absolute() / "models")


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, this one unless `pid` is given."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def table(rows: Sequence[Row]) -> str:
    """Format rows as text, a column for each key."""
    keys = dict.fromkeys(key for row in rows for key in row)
    values = [[row.get(key, "") for key in keys] for row in rows]
    lines = [list(keys), *([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in values)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def save(folder: Path, name: str, arguments: Sequence[str], rows: Sequence[Row]) -> Path:
    """Write the rows as JSON with arguments, date and machine; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    measured = {"benchmark": name, "arguments": list(arguments), "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    text = json.dumps({**measured, "machine": machine(), "rows": list(rows)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, Any]:
    """Describe the machine and the versions of the libraries."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else platform.machine(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": _gpu(),
        "precision": Settings.from_env().precision,
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _gpu() -> str:
    """Name the GPUs as their driver does; empty without one. A child is asked, since torch would be large."""
    tool = shutil.which("nvidia-smi")
    query = "--query-gpu=name,memory.total,driver_version"
    asked = subprocess.run([tool, query, "--format=csv,noheader"], capture_output=True, text=True) if tool else None
    return "; ".join(asked.stdout.split("\n")).strip("; ") if asked and not asked.returncode else ""
