"""Evaluate, describe and publish versions; import adapters and export merged models."""
