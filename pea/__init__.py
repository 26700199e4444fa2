"""PEA-Cache: train language adapters for diffusion models from a cache of one frozen teacher's answers.

The package imports nothing heavy by itself; import the module you need (``pea.config``, ``pea.cache``, ...).
"""

__version__ = "0.1.0"
