"""Where mamba-ssm has its modules."""
