"""Key and seed to timestep, noise and caption drop; pure."""
