"""Bases: found, checked, loaded and tokenized; and the checks of adapters for them."""
