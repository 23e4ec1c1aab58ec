"""tests/ui/html."""
