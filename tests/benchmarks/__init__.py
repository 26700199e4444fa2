"""Benchmarks: `make bench`, or each by its module."""

import stages.guard  # noqa: F401  (keeps libraries quiet about packages that nobody needs here)
