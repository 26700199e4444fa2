"""A pipeline of stages: its file, what it depends on, and whether that changed."""
