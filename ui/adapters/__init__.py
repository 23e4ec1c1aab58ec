"""ui/adapters."""
