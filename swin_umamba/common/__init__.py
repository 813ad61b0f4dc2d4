"""The base of all other packages: files, argument checks, devices, CUDA graphs, environment."""
