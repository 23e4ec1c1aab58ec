"""The tests, one module for each module of ours."""

import os

from settings import SHARED

for key, value in SHARED.items():
    os.environ.setdefault(key, value)  # as the page does, and before anything imports torch
