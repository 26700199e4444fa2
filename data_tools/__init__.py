"""Things done to corpora and looked up in caches; the small world."""

import os

# Both libraries warn at import about packages that are not used here; a user who wants to hear them sets these.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
