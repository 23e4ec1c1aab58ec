"""Text generation: requests, batching, key-value caches and sampling."""
