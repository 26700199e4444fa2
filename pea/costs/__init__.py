"""Bytes and arithmetic, from shapes alone."""
