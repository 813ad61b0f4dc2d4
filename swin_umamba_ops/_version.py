"""The package's version, in the one place that both the build and the import read."""

__version__ = "0.1.0"
