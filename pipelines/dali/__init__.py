"""DALI on CPUs and CUDA."""
