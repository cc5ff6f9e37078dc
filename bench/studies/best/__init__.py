"""What to deploy: the fastest way from files to top-5 that keeps the accuracy."""
