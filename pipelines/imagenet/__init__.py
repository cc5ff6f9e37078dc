"""ImageNet's validation images on disk, and their labels."""
