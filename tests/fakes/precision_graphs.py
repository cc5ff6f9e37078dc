"""Small networks as ONNX graphs, and images for them: what the tests of lower precision share."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 16


def images(n=6, seed=0, size=SIZE):
    return np.random.default_rng(seed).standard_normal((n, 3, size, size)).astype(np.float32)


def weight(name, *shape):
    values = np.random.default_rng(len(name)).standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
    return numpy_helper.from_array(values.astype(np.float32), name)


def small(opset=18, batch="batch", extra=(), named=True, batchnorm=False):
    """Conv, h-swish (BatchNorm before it on request), Conv, sum with ``extra`` nodes on top, mean, linear."""
    nodes = [
        ("Conv", ["input", "w1", "b1"], "first"),
        *([("BatchNormalization", ["first", "s", "o", "m", "v"], "normal")] if batchnorm else []),
        ("HardSwish", ["normal" if batchnorm else "first"], "active"),
        ("Conv", ["active", "w2", "b2"], "second"),
        ("Add", ["second", "active"], "sum"),
        *extra,
        ("GlobalAveragePool", [extra[-1][2] if extra else "sum"], "mean"),
        ("Flatten", ["mean"], "flat"),
        ("Gemm", ["flat", "w3", "b3"], "logits"),
    ]
    weights = [weight("w1", 4, 3, 3, 3), weight("b1", 4), weight("w2", 4, 4, 1, 1), weight("b2", 4)]
    weights += [weight("w3", 4, 5), weight("b3", 5)]
    if batchnorm:
        weights += [weight("s", 4), weight("o", 4), weight("m", 4)]
        weights += [numpy_helper.from_array(np.full(4, 2, np.float32), "v")]
    graph = helper.make_graph(
        [
            helper.make_node(kind, inputs, [output], name=f"block.{place}/{kind}" if named else "")
            for place, (kind, inputs, output) in enumerate(nodes)
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def saved(tmp_path, model, name="small.onnx"):
    path = tmp_path / name
    onnx.save(model, path)
    return path


def run(path, pixels):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": pixels})[0]
