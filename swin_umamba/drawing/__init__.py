"""Pictures: overlays of masks on images, PNG files, and curves of a run."""
