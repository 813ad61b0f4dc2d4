"""`swin-umamba demo`: train on three quadrants of one real image and segment the fourth."""
