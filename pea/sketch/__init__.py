"""Feature maps to sketches: maps, codecs, and what each costs in rate and distortion."""
