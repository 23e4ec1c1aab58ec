"""Child processes of the store: an explicit environment, output to a file, a callback while they run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_SECONDS = 0.2
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)
# What a Python child needs to find its libraries and its GPU, and nothing that could carry a secret.
PLAIN = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|DYLD_\w+|VIRTUAL_ENV|CONDA_PREFIX|CUDA_\w+|NVIDIA_\w+|ROCR_\w+|HIP_\w+"
    r"|OMP_\w+|MKL_\w+|OPENBLAS_\w+|HF_HOME|XDG_CACHE_HOME"
)


def plain_environment(**extra: str) -> dict[str, str]:
    """This process's environment reduced to an allow-list, plus `extra`."""
    return {key: value for key, value in os.environ.items() if PLAIN.fullmatch(key)} | extra


def installer_environment(**extra: str) -> dict[str, str]:
    """This process's environment without secrets, plus `extra`; pip's own settings are the user's and stay."""
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or not SECRET.search(key)}
    return kept | extra


def run(argv: Sequence[str], environment: dict[str, str], folder: Path, log: Path, tick: Callable[[], None]) -> int:
    """Run `argv` in `folder` with all its output in `log`, calling `tick` some times a second; returns the exit status.

    The child is killed when `tick` raises, which is how a caller cancels it, and on Ctrl-C.
    """
    with (
        log.open("wb") as out,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder
        ) as process,
    ):
        try:
            return _wait(process, tick)
        except BaseException:
            process.kill()
            raise


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            tick()
