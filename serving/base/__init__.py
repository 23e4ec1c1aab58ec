"""One base model in memory, and the versions that adapt it."""
