"""Answers: resident bases, adapter slots, batching and generation; what stands behind a plugin's `lm`.

`pool`, `lm`, `watch` and what these import need no torch; the rest is imported by the pool's loading thread.
"""
