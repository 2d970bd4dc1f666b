"""Builds the default encoder's two networks as ONNX graphs from plain arrays, and opens them in ONNX Runtime.

The packages hold weights, not graphs. This module defines each network once, with ONNX's own operators: EfficientNet-
Lite0 (Tan & Le 2019; the Lite variant has no squeeze-and-excitation and uses ReLU6) and a BERT encoder (MiniLM: Wang et
al. 2020). Nothing is written to disk.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.weights import Arrays

IMAGE_SIDE = 224  # pixels; the size that EfficientNet-Lite0 was trained for
BERT_HEADS = 12

_OPSET = 20  # the first with Gelu
_IR_VERSION = 10  # the version that introduced opset 20, so that older runtimes can load it, too
_BATCH_NORM_EPSILON = 1e-3
# repeats, kernel, stride of the first, expansion, output channels (the lite builder of the TPU models)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _Graph:
    """Collects nodes and initialisers; every method returns the name of what it added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self._names = (f"t{i}" for i in itertools.count())

    def const(self, value: NDArray[Any] | Sequence[int] | float) -> str:
        from onnx import numpy_helper

        if isinstance(value, float):
            value = np.asarray(value, np.float32)
        array = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        name = next(self._names)
        self.initialisers.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or next(self._names)
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def split(self, value: str, parts: int) -> list[str]:
        """``value`` cut into equal parts along its last axis."""
        from onnx import helper

        names = [next(self._names) for _ in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], names, axis=-1, num_outputs=parts))
        return names

    def linear(self, value: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        """``value @ weight.T + bias``; weight: (outputs, inputs), as torch keeps it."""
        return self.op("Add", self.op("MatMul", value, self.const(weight.T)), self.const(bias))

    def build(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        from onnx import helper

        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initialisers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        return bytes(model.SerializeToString())


def _tensor(name: str, kind: str, shape: Sequence[int | str]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)


def efficientnet_lite0(arrays: Arrays) -> bytes:
    """The classifier: ``image`` (1, 3, 224, 224) float32 -> ``logits`` and ``probabilities``, both (1, 1000).

    Batch norm is folded into the convolutions (in float64, then rounded once). Padding is TensorFlow's
    "same": the odd pixel goes below and to the right. Raises EncoderError if an array is missing.
    """
    graph = _Graph()
    side = IMAGE_SIDE

    def conv(value: str, weight: str, norm: str, *, stride: int = 1, relu6: bool = True) -> str:
        nonlocal side
        kernel = np.asarray(_get(arrays, f"{weight}.weight"), np.float64)
        gain = _get(arrays, f"{norm}.weight") / np.sqrt(
            np.asarray(_get(arrays, f"{norm}.running_var"), np.float64) + _BATCH_NORM_EPSILON
        )
        bias = _get(arrays, f"{norm}.bias") - _get(arrays, f"{norm}.running_mean") * gain
        size = kernel.shape[-1]
        after = math.ceil(side / stride)
        padding = max((after - 1) * stride + size - side, 0)
        side = after
        before = padding // 2
        value = graph.op(
            "Conv",
            value,
            graph.const((kernel * gain[:, None, None, None]).astype(np.float32)),
            graph.const(bias.astype(np.float32)),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[before, before, padding - before, padding - before],
            group=kernel.shape[0] if kernel.shape[1] == 1 else 1,  # depthwise, or over all channels
        )
        return graph.op("Clip", value, graph.const(0.0), graph.const(6.0)) if relu6 else value

    value = conv("image", "_conv_stem", "_bn0", stride=2)
    channels = 32
    blocks = ((k, s if i == 0 else 1, e, o) for r, k, s, e, o in _STAGES for i in range(r))
    for index, (_, stride, expansion, out) in enumerate(blocks):
        block, start = f"_blocks.{index}", value
        if expansion != 1:
            value = conv(value, f"{block}._expand_conv", f"{block}._bn0")
        value = conv(value, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
        value = conv(value, f"{block}._project_conv", f"{block}._bn2", relu6=False)
        if stride == 1 and channels == out:
            value = graph.op("Add", value, start)
        channels = out
    value = conv(value, "_conv_head", "_bn1")
    value = graph.op("Flatten", graph.op("GlobalAveragePool", value))
    fc = (graph.const(_get(arrays, "_fc.weight")), graph.const(_get(arrays, "_fc.bias")))
    logits = graph.op("Gemm", value, *fc, transB=1, output="logits")
    graph.op("Softmax", logits, axis=-1, output="probabilities")
    return graph.build(
        "efficientnet-lite0",
        [_tensor("image", "FLOAT", (1, 3, IMAGE_SIDE, IMAGE_SIDE))],
        [_tensor("logits", "FLOAT", (1, 1000)), _tensor("probabilities", "FLOAT", (1, 1000))],
    )


def bert_mean_pooled(arrays: Arrays, *, heads: int = BERT_HEADS, epsilon: float = 1e-12) -> bytes:
    """The sentence encoder: ``ids`` (batch, tokens) int64 -> ``mean`` (batch, width) float32.

    ``mean`` is the mean of the last layer over the tokens, not yet normalised. There is no mask: texts of one
    batch have the same number of tokens, so that nothing is ever padded. Depth and width follow from the
    arrays (BERT's names, without prefix). Raises EncoderError if an array is missing.
    """
    graph = _Graph()
    width = _get(arrays, "embeddings.word_embeddings.weight").shape[1]

    def norm(value: str, name: str) -> str:
        parts = (graph.const(_get(arrays, f"{name}.weight")), graph.const(_get(arrays, f"{name}.bias")))
        return graph.op("LayerNormalization", value, *parts, axis=-1, epsilon=epsilon)

    def linear(value: str, *names: str) -> str:
        weight = np.concatenate([_get(arrays, f"{name}.weight") for name in names])
        return graph.linear(value, weight, np.concatenate([_get(arrays, f"{name}.bias") for name in names]))

    # Every text is one segment, so segment 0's embedding can be added to the positions in advance.
    place = _get(arrays, "embeddings.position_embeddings.weight")
    place = place + _get(arrays, "embeddings.token_type_embeddings.weight")[0]
    tokens = graph.op("Shape", "ids", start=1, end=2)
    place_here = graph.op("Slice", graph.const(place), graph.const([0]), tokens)
    words = graph.op("Gather", graph.const(_get(arrays, "embeddings.word_embeddings.weight")), "ids")
    value = norm(graph.op("Add", words, place_here), "embeddings.LayerNorm")

    by_head, joined = graph.const([0, 0, heads, width // heads]), graph.const([0, 0, width])
    scale = graph.const(1 / math.sqrt(width // heads))
    for layer in itertools.takewhile(
        lambda name: f"{name}.output.dense.weight" in arrays,
        map("encoder.layer.{}".format, itertools.count()),
    ):
        attention = f"{layer}.attention.self"
        qkv = linear(value, f"{attention}.query", f"{attention}.key", f"{attention}.value")
        q, k, v = (graph.op("Reshape", part, by_head) for part in graph.split(qkv, 3))
        q = graph.op("Transpose", q, perm=[0, 2, 1, 3])
        k = graph.op("Transpose", k, perm=[0, 2, 3, 1])
        v = graph.op("Transpose", v, perm=[0, 2, 1, 3])
        scores = graph.op("Mul", graph.op("MatMul", q, k), scale)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        mixed = linear(mixed, f"{layer}.attention.output.dense")
        value = norm(graph.op("Add", mixed, value), f"{layer}.attention.output.LayerNorm")
        inner = graph.op("Gelu", linear(value, f"{layer}.intermediate.dense"))
        outer = linear(inner, f"{layer}.output.dense")
        value = norm(graph.op("Add", outer, value), f"{layer}.output.LayerNorm")

    graph.op("ReduceMean", value, graph.const([1]), keepdims=0, output="mean")
    return graph.build(
        "bert-mean-pooled",
        [_tensor("ids", "INT64", ("batch", "tokens"))],
        [_tensor("mean", "FLOAT", ("batch", width))],
    )


def open_session(model: bytes) -> Any:
    """An ONNX Runtime session on the CPU that computes in the calling thread alone.

    One thread a run, so that the order of a sum does not depend on the machine's cores. Callers that want all cores
    call ``run`` from several threads, which ONNX Runtime allows. A session without threads also survives a fork.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _get(arrays: Arrays, name: str) -> NDArray[Any]:
    try:
        return arrays[name]
    except KeyError:
        raise EncoderError(
            f"weights: no array '{name}'.\n  The installed weights are of another model; install the pinned version."
        ) from None
