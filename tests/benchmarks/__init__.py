"""Benchmarks: `make bench`, or each by its module."""

import stages  # noqa: F401  (keeps libraries quiet about packages that nobody needs here)
