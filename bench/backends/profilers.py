"""Where the time of one call goes, layer by layer: a diagnosis, not a row of the table.

A worker times a backend without profiling and with it, turn by turn (``nodes``); the runtime's own nodes are joined to
the layers of the model (``layers``) and become rows (``table``). A new runtime is one file here and one line below.
"""

from __future__ import annotations

# What profiles each backend: a class that takes the Case, the model's files and the loaded backend.
PROFILERS: dict[str, str] = {
    "onnxruntime": "bench.backends.onnxruntime.profiler:OnnxRuntimeProfiler",
    "openvino": "bench.backends.openvino.profiler:OpenVinoProfiler",
    "pytorch": "bench.backends.pytorch.profiler:PyTorchProfiler",
}
