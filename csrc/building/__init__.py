"""How setup.py builds `swin_umamba_ops._C`: plain C++ and CUDA, ninja, and no torch."""
