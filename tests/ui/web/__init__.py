"""tests/ui/web."""
