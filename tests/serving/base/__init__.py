"""tests/serving/base."""
