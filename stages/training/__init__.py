"""The phases of a training run: set-up, steps, checkpoints, output; the only room that imports accelerate."""
