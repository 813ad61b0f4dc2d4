"""The scans and other implementations: calls, checks and timing."""
