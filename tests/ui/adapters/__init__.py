"""tests/ui/adapters."""
