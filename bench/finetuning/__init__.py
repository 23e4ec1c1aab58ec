"""Comparisons of training: speed, memory, quality, preparing data, and the time until a version answers."""
