"""One run: images, model files, Cases, rows."""
