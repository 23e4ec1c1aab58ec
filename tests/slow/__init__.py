"""Long tests. Each takes seconds as it is; an environment variable gives it its full size:

    SOAK_MINUTES=30 pytest -s tests/slow/test_soak.py
    KILL_MINUTES=10 pytest -s tests/slow/test_kills.py
    FUZZ_SECONDS=120 FUZZ_SEED=2 pytest -s tests/slow/test_fuzz.py                      seconds of each target
    ESTIMATE_RUNS=15 pytest -s tests/slow/test_estimates.py
    SWAP_MOVES=250 pytest tests/serving/test_swap.py

`-s` shows the figures. `pytest -m "not slow"` leaves all of them out.
"""

import os


def size(name: str, small: float) -> float:
    """Return the number in an environment variable, `small` unless it is set."""
    return float(os.environ.get(name, small))
