"""From a dataset to the network's input: fingerprint, plan, normalisation, resampling, cache."""
