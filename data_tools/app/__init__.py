"""A page on which an adapter is tried beside its teacher."""
