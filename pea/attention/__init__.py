"""Frozen cross-attention layers alone, and the queries that a cache keeps of them."""
