"""The frozen text encoders of other languages: how each kind is read, alone or two side by side."""
