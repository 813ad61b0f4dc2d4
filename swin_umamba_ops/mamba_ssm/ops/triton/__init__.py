"""Where mamba-ssm has its Triton kernels."""
