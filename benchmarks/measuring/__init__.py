"""What every benchmark shares: cases, timing, the machine, records of results."""
