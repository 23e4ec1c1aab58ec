"""Peers of the comparisons: the libraries themselves, used as their own documentation says, each a process."""
