"""Datasets on disk: which files belong to which case, what labels mean, and how cases are split."""
