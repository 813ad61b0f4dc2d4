"""What the folder of a training run holds: config, log, checkpoints and weights."""
