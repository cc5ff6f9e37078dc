"""TensorRT on CUDA."""
