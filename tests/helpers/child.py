"""Child processes of tests."""

from __future__ import annotations

import os
import subprocess
import sys

from settings import REPOSITORY

KEPT = {key: os.environ[key] for key in ("PATH", "HOME", "VIRTUAL_ENV") if key in os.environ}
"""The part of this process's environment that children get."""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in the repository, offline, with no other variables of this process's environment."""
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=REPOSITORY,
        env=KEPT | {"HF_HUB_OFFLINE": "1"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
