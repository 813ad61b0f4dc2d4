"""What `train` and `pretrain` share: processes, the loop around the steps, averages, rates."""
