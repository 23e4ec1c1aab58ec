"""Base models in memory, adapter slots, batching and generation: everything behind a plugin's `lm`.

`pool`, `lm` and what they import need no torch; the pool's loading threads import the rest.
"""
