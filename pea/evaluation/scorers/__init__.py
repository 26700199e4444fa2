"""Published models that score images, each in the form that it was published in."""
