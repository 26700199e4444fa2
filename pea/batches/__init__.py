"""Rows of caches to training batches; text states of captions."""
