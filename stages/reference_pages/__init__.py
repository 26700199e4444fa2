"""What the reference pages say, read from the models of the settings and from the parsers of the commands."""
