"""tests/training/runs."""
