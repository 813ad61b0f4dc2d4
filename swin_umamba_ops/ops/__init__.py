"""The torch.library ops, one file each: schema, fake, FLOPs, kernels by backend, and autograd
around them."""
