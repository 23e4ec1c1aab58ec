"""models/memory_use.py: holes between small blocks go back to the system."""

import subprocess
import sys

import pytest

from settings import REPOSITORY

HOLES = """
import ctypes, sys
from pathlib import Path
from models.memory_use import return_large_blocks

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
def test_what_is_freed_between_small_blocks_goes_back(choice: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", HOLES, choice], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    held = int(child.stdout)
    assert held < 8 << 20 if choice == "returned" else held > 80 << 20, "the first one shows that there is a choice"
