"""The stages of the pipeline, one thin file each, and the command ``pea`` that starts them."""
