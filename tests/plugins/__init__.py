"""tests/plugins."""
