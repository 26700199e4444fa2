"""Things done to corpora and looked up in caches; the small world."""

import stages  # noqa: F401  (keeps libraries quiet about packages that nobody needs here)
