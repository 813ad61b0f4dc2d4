"""Training steps and inference of whole models."""
