"""The path of mamba-ssm's ops."""
