"""Helpers that several test modules share."""

TAB = "generation"
"""The tab of homes that are trained, served and changed."""
