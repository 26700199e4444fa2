"""Images from adapters, and scores of images."""
