"""What others bring: networks that they define, ONNX files and checkpoints."""
