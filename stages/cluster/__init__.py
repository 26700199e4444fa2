"""Ray: what is spread over machines."""
