"""Several adapters, checkpoints, samplers and numbers of steps, drawn and scored in one call."""
