"""tests/slow."""
