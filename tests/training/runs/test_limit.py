"""training/runs/child.py and training/runs/child.py: a run takes no more memory and no more time than it may."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from settings import REPOSITORY, Settings, child_environment
from training.events import PAUSE
from training.runs import child

TAKES = """
from types import SimpleNamespace
from settings import Settings
from training import limit
held = bytearray(50 * 2**20)
data = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
most = int(data.split()[1]) * 1024 + 300 * 2**20  # libraries for a GPU have hundreds of MB of data themselves
print(limit.memory(SimpleNamespace(peak=0, available=SimpleNamespace(gpu=0)), Settings(run_memory_bytes=most)) - most)
try:
    bytearray(2**30)
except MemoryError:
    print("refused")
bytearray(50 * 2**20)
print("goes on")
"""


def test_r12_what_goes_beyond_the_limit_fails_in_the_run_alone() -> None:
    ended = subprocess.run([sys.executable, "-c", TAKES], cwd=REPOSITORY, env=child_environment(), capture_output=True,
                           text=True, check=True)  # fmt: skip
    assert ended.stdout.split("\n")[:3] == ["0", "refused", "goes on"]


@pytest.mark.parametrize(("peak", "gpu", "told", "limited"), [
    (10**9, 0, 0, int(2e9) + child.BESIDE), (10**9, 0, 5 * 10**8, 5 * 10**8), (10**9, 8 * 10**9, 0, 0),
    (10**9, 8 * 10**9, 7 * 10**9, 7 * 10**9),
])  # fmt: skip
def test_r12_the_limit_is_twice_the_estimate_or_what_was_said(
    peak: int, gpu: int, told: int, limited: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: seen.append((kind, limits[0])))
    found = child.memory(
        SimpleNamespace(peak=peak, available=SimpleNamespace(gpu=gpu)), Settings(run_memory_bytes=told)
    )
    assert found == limited and seen == ([(resource.RLIMIT_DATA, limited)] if limited else [])


def time_out(folder: Path, grace_s: float, then: str) -> int:
    """The exit status of a process, which such a limit may end, whose time is over at once and that does `then`."""
    code = "import sys, time; from pathlib import Path; from training import child; "
    code += f"child.limit_time(Path(sys.argv[1]), 0.01, grace_s={grace_s})\n{then}"
    return subprocess.run([sys.executable, "-c", code, str(folder)], cwd=REPOSITORY, env=child_environment()).returncode


def test_r12_a_run_whose_time_is_over_is_paused(tmp_path: Path) -> None:
    assert time_out(tmp_path, 900, f"while not (Path(sys.argv[1]) / {PAUSE!r}).exists(): time.sleep(0.01)") == 0


def test_r12_a_run_that_does_not_pause_is_ended(tmp_path: Path) -> None:
    assert time_out(tmp_path, 0.01, "time.sleep(60)") == child.NEVER_PAUSED
    assert (tmp_path / PAUSE).exists()
