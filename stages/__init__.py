"""The stages of the pipeline, one thin file each, and the command ``pea`` that starts them."""

import data_tools  # noqa: F401  (keeps libraries quiet about packages that nobody needs here)
