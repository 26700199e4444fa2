"""What ``pea doctor`` looks at: one finding a line, each with its remedy."""
