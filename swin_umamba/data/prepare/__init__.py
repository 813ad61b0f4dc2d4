"""From a dataset to the network's input: fingerprint, plan, normalization, resampling, cache."""
