"""What every other part stands on: files, argument checks, devices, CUDA graphs, environment."""
