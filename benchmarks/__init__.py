"""Measure the scans against their peers: `python -m benchmarks ops|report|plot`.

Correctness comes first: whatever disagrees with float64 is reported as wrong and not timed.
Results are JSON with device, versions and commit; tables and plots are made from the JSON alone.
"""
