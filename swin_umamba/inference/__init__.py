"""From an image to its mask with a trained model."""
