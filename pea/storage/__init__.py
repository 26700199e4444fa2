"""Files on disk: published whole, made durable, digested, locked."""
