"""Runs a network's image side: by torch, ONNX Runtime or OpenVINO in float32, by torch or OpenVINO in bfloat16, or by
OpenVINO in int8.

bfloat16 pays where the processor computes in it (Intel since AVX512-BF16 and AMX, AMD since Zen 4, GPUs); elsewhere
torch emulates it, many times slower than float32, and OpenVINO would compute in float32 without a word, which is
refused here: another machine would give other vectors under the same name. int8 runs a network that was calibrated on
images once (``calibrated``); it pays on any processor. ONNX Runtime's dynamic int8 is slower than float32.
"""

from __future__ import annotations

import importlib
import io
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import Recipe, Vectors, cores

Run = Callable[[NDArray[np.float32]], Vectors]  # pixels to vectors
Forward = Callable[[Any], Vectors]  # pixels, a torch tensor (batch, 3, side, side), to vectors (batch, dim)

_FILES = ("network.xml", "network.bin")
_WAYS = {
    *((None, precision) for precision in (None, "bf16", "fp16")),
    *(("torch", precision) for precision in (None, "bf16", "fp16")),
    *(("openvino", precision) for precision in (None, "bf16", "int8")),
    ("onnxruntime", None),
}


def forward(network: Any, recipe: Recipe, example: Any) -> Forward:
    """What computes vectors from pixels by the recipe's runtime and precision.

    network: a torch module on its device; example: pixels of the one shape that will be asked for.

    Raises EncoderError for a way that there is not, a runtime that is not installed, or a precision that this machine
    does not have.
    """
    if (recipe.runtime, recipe.precision) not in _WAYS:
        raise EncoderError(
            f"encoder: {recipe.runtime or 'torch'} does not compute this network in {recipe.precision or 'fp32'}.\n"
            "  Set encoder.runtime to torch (fp32, bf16, fp16), onnxruntime (fp32) or openvino (fp32, bf16, int8), or "
            "leave both unset."
        )
    if recipe.runtime == "openvino":
        run = by_openvino(lambda: _converted(network, example), recipe)
        return lambda pixels: run(pixels.numpy())
    if recipe.runtime == "onnxruntime":
        return _onnxruntime(network, example)
    if recipe.precision == "fp16" and example.device.type == "cpu":
        raise EncoderError(
            "encoder: its precision is fp16, which is for GPUs, and this machine has none that torch can use.\n"
            "  Embed on a machine with a GPU, or leave encoder.precision unset."
        )
    return by_torch(network, recipe.precision)


def computes_bf16() -> bool:
    """Whether this machine computes in bfloat16, rather than by float32: a GPU, or the processor."""
    import torch

    if torch.cuda.is_available():
        return True
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def by_torch(network: Callable[[Any], Any], precision: str | None) -> Forward:
    """By torch, exactly: no TF32 on a GPU."""
    import torch

    def run(pixels: Any) -> Vectors:
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        kind = torch.float16 if precision == "fp16" else torch.bfloat16
        half = torch.autocast(pixels.device.type, kind, enabled=precision is not None)
        with torch.inference_mode(), exact, half:
            result: Vectors = network(pixels).float().cpu().numpy()
        return result

    return run


def _onnxruntime(network: Any, example: Any) -> Forward:
    torch: Any = importlib.import_module("torch")
    onnxruntime = _package("onnxruntime", "simulate")
    _package("onnx", "simulate")  # which torch exports with
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")  # a file, because a network of more than 2 GB has a second one beside it
        named = {"input_names": ["pixels"], "output_names": ["features"]}
        # With gradients, since without them torch takes a fused operator of its own that ONNX does not have.
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises another exporter, which needs another package
            torch.onnx.export(network.float().cpu().eval(), (example,), str(file), dynamo=False, **named)
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels.numpy()})[0]


def by_openvino(model: Callable[[], Any], recipe: Recipe, output: str | int = 0, at_once: int = 1) -> Run:
    """By OpenVINO in the recipe's precision; may be called from several threads at once.

    model: gives the network for OpenVINO; not asked for one in int8, which the recipe carries. output: its place
    or name. at_once: how many threads will call it, among which the cores are divided.

    Raises EncoderError where packages are missing, for int8 that is not calibrated, and for bf16 on a processor that
    would compute otherwise.
    """
    core = _packages()[0].Core()
    if recipe.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EncoderError(
            "encoder: its recipe is openvino in bf16, and this machine's processor does not compute in bf16.\n"
            "  Embed on a machine that does (lscpu names avx512_bf16 or amx_bf16), or leave encoder.precision unset."
        )
    chosen = _int8(core, recipe) if recipe.precision == "int8" else model()
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if recipe.precision == "bf16" else "f32"}
    hints |= {"PERFORMANCE_HINT": "LATENCY"} if at_once == 1 else {"NUM_STREAMS": str(at_once)}
    compiled, mine = core.compile_model(chosen, "CPU", hints), threading.local()

    def run(pixels: NDArray[np.float32]) -> Vectors:
        if not hasattr(mine, "request"):
            mine.request = compiled.create_infer_request()
        result: Vectors = mine.request.infer([pixels])[output].copy()
        return result

    return run


def calibrated(network: Any, batches: Sequence[Any]) -> bytes:
    """A torch network's int8 form, as ``Recipe.network`` holds it: ranges are taken from these pixels.

    batches: torch tensors of the one shape that will be asked for. Raises EncoderError where packages are missing.
    """
    return in_int8(lambda: _converted(network, batches[0]), [batch.numpy() for batch in batches], transformer=True)


def in_int8(model: Callable[[], Any], batches: Sequence[NDArray[np.float32]], *, transformer: bool) -> bytes:
    """The same of what ``model`` gives, which is a network for OpenVINO."""
    openvino, nncf = _packages("nncf")
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if transformer else {}
    small = nncf.quantize(model(), nncf.Dataset(list(batches)), subset_size=len(batches), **kind)
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w") as file:
        openvino.save_model(small, str(Path(folder, "network.xml")), compress_to_fp16=False)
        for name in _FILES:
            # A fixed time, so that the same network has the same hash.
            file.writestr(zipfile.ZipInfo(name), Path(folder, name).read_bytes())
    return out.getvalue()


def _int8(core: Any, recipe: Recipe) -> Any:
    if recipe.network is None:
        raise EncoderError(
            "encoder: precision int8 is not calibrated in this store yet.\n"
            "  `taskgalaxy generate` calibrates it, on the store's own images."
        )
    with zipfile.ZipFile(io.BytesIO(recipe.network)) as file:
        xml, weights = (file.read(name) for name in _FILES)
    return core.read_model(model=xml, weights=weights)


def of_onnx(graph: bytes) -> Any:
    """An ONNX graph as a network for OpenVINO. Raises EncoderError where OpenVINO is missing."""
    return _packages()[0].Core().read_model(graph)


def _converted(network: Any, example: Any) -> Any:
    torch: Any = importlib.import_module("torch")
    openvino = _packages()[0]
    network = network.float().cpu().eval()
    with torch.no_grad():  # its own check of the trace takes attention's two equal forms for different
        traced = torch.jit.trace(network, example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=list(example.shape))


def _packages(*more: str) -> list[Any]:
    """OpenVINO, and others of its extra, without what would report their use to Google Analytics unasked."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed, which both allow
    return [_package(name, "openvino") for name in ("openvino", *more)]


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EncoderError(
            f"encoder: its recipe needs {error.name}, which is not installed.\n"
            f"  pip install 'taskgalaxy-ops[{extra}]' brings it."
        ) from error
