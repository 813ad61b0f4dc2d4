"""Patches for training: where they are cut, how they are augmented, and who loads them."""
