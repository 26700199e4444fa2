"""What an actor runs: a tar through the frozen models into one part of a shard."""
