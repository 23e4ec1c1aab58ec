"""tests/serving."""
