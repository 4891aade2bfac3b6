"""The version of hnx; the lowest layer holds it so that every layer can name it."""

__version__ = "0.1.0"
