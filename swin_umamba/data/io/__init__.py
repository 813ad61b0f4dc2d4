"""Read and write image and label files of every supported format."""
