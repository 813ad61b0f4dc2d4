"""The path of mamba-ssm's Triton kernels."""
