"""Measure the scans against other implementations: `python -m benchmarks ops|report|plot`.

Correctness comes first: anything that disagrees with float64 is reported as wrong and not timed.
Results are JSON with device, versions and commit; tables and plots are generated from the JSON
alone.
"""
