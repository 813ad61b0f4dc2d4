"""Datasets on disk: the files of each case, the meaning of labels, and the splits."""
