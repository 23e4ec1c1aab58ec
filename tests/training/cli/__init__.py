"""tests/training/cli."""
