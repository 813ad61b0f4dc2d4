"""The package's version, read by both the build and the import."""

__version__ = "0.1.0"
