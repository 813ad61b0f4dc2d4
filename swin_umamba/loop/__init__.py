"""Shared by `train` and `pretrain`: processes, training loop, weight averages, learning rates."""
