"""The Triton kernels: tiles of states and channels walk along the sequence in registers."""
