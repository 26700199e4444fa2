"""Tars to samples: members, captions, images."""
