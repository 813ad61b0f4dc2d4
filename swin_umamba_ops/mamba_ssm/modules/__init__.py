"""The path of mamba-ssm's modules."""
