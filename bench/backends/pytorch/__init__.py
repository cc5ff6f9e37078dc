"""PyTorch on CPUs and CUDA."""
