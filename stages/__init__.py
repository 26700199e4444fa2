"""The stages of the pipeline, one thin file each, and the command ``pea`` that starts them."""

import os

# Both libraries warn at import about packages that are not used here; a user who wants to hear them sets these.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
