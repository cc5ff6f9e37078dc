"""ONNX Runtime on CPUs and CUDA."""
