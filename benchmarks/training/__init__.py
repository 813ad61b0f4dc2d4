"""Whole trainings: accuracy for equal time, and several GPUs."""
