"""The scans against their peers: what is called, checked and timed."""
