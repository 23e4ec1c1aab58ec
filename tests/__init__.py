"""The tests, one module for each module of ours."""

import os

from process_setup import ENVIRONMENT

for key, value in ENVIRONMENT.items():
    os.environ.setdefault(key, value)  # as the page does, and before anything imports torch
