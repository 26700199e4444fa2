"""Looking into a cache: facts, samples, differences, replays, pages."""
