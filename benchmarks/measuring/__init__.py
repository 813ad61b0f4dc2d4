"""Shared by all benchmarks: cases, timing, environment, result records."""
