"""process_setup.py: changes to a process have the effect that its table states."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from settings import REPOSITORY, child_environment, prepare_environment
from tests.helpers.child import run

pytestmark = pytest.mark.slow

HOLES = """
import ctypes, sys
from pathlib import Path
from process_setup import return_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))  # glibc learns from it that such blocks belong into the heap
if sys.argv[1] == "returned":
    assert return_large_blocks()
before, large, small = resident(), [], []
for _ in range(40):
    large.append(libc.malloc(4 << 20))
    ctypes.memset(large[-1], 1, 4 << 20)
    small.append(libc.malloc(1000))
for block in large:
    libc.free(block)
print(resident() - before)
"""


@pytest.mark.parametrize("choice", ["kept", "returned"])
def test_blocks_freed_between_small_ones_return_to_the_system(choice: str) -> None:
    held = int(run("-c", HOLES, choice).stdout)
    assert held < 8 << 20 if choice == "returned" else held > 80 << 20, "the first one shows that there is a choice"


def test_idle_threads_sleep_early_in_this_process_and_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["GOMP_SPINCOUNT"] == child_environment()["GOMP_SPINCOUNT"] == "20000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    prepare_environment()
    assert os.environ["GOMP_SPINCOUNT"] == child_environment()["GOMP_SPINCOUNT"] == "5"


def test_r01_no_process_takes_compiled_code_from_the_hub(tmp_path: Path) -> None:
    """By the package that bitsandbytes and transformers look for, if it is installed."""
    (tmp_path / "kernels.py").write_text("raise SystemExit('it was imported')", encoding="utf-8")
    code = "import settings, sys; import bitsandbytes; from transformers.utils import is_kernels_available; "
    code += "sys.exit(bool(is_kernels_available()))"
    ended = run("-c", code, **child_environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(REPOSITORY)])))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


def test_a_blocked_module_cannot_be_imported_and_a_loaded_one_stays() -> None:
    code = "from process_setup import block_modules; import json; block_modules('json', 'tomllib'); import json\n"
    ended = run("-c", f"{code}import tomllib")
    assert ended.returncode == 1 and "import of tomllib halted" in ended.stderr
