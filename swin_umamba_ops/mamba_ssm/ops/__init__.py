"""Where mamba-ssm has its ops."""
