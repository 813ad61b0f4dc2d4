"""Where nnU-Net looks for trainers: see `swin_umamba.nnunet.TRAINER_FOLDER`."""
