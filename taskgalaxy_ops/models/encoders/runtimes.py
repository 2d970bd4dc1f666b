"""Runs a torch network's image side by torch or by OpenVINO, in float32 or bfloat16, or by OpenVINO in int8.

bfloat16 pays where the processor computes in it (Intel since AVX512-BF16 and AMX, AMD since Zen 4, GPUs); elsewhere
torch emulates it, many times slower than float32, and OpenVINO would compute in float32 without a word, which is
refused here: another machine would give other vectors under the same name. int8 runs a network that was calibrated on
images once (``calibrated``); it pays on any processor. ONNX Runtime's dynamic int8 is slower than float32.
"""

from __future__ import annotations

import importlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import Recipe, Vectors

Forward = Callable[[Any], Vectors]  # pixels, a torch tensor (batch, 3, side, side), to vectors (batch, dim)

_FILES = ("network.xml", "network.bin")
_WAYS = {(None, None), ("torch", None), ("torch", "bf16"), (None, "bf16"), ("openvino", None), ("openvino", "bf16")}


def forward(network: Any, recipe: Recipe, example: Any) -> Forward:
    """What computes vectors from pixels by the recipe's runtime and precision.

    network: a torch module on its device; example: pixels of the one shape that will be asked for.

    Raises EncoderError for a way that there is not, a runtime that is not installed, or a precision that this machine
    does not have.
    """
    if recipe.precision == "int8" and recipe.runtime == "openvino":
        return _int8(recipe)
    if (recipe.runtime, recipe.precision) not in _WAYS:
        raise EncoderError(
            f"encoder: {recipe.runtime or 'torch'} does not compute this network in {recipe.precision or 'fp32'}.\n"
            "  Set encoder.runtime to torch (fp32, bf16) or openvino (fp32, bf16, int8), or leave both unset."
        )
    if recipe.runtime == "openvino":
        return _openvino(network, recipe, example)
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
        half = torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), exact, half:
            result: Vectors = network(pixels).float().cpu().numpy()
        return result

    return run


def _openvino(network: Any, recipe: Recipe, example: Any) -> Forward:
    core = _packages()[0].Core()
    if recipe.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EncoderError(
            "encoder: its recipe is openvino in bf16, and this machine's processor does not compute in bf16.\n"
            "  Embed on a machine that does (lscpu names avx512_bf16 or amx_bf16), or leave encoder.precision unset."
        )
    return _compiled(core, _converted(network, example), recipe.precision or "f32")


def calibrated(network: Any, batches: Sequence[Any]) -> bytes:
    """A torch network's int8 form, as ``Recipe.network`` holds it: ranges are taken from these pixels.

    batches: torch tensors of the one shape that will be asked for. Raises EncoderError where packages are missing.
    """
    openvino, nncf = _packages("nncf")
    model = _converted(network, batches[0])
    inputs = nncf.Dataset([batch.numpy() for batch in batches])
    small = nncf.quantize(model, inputs, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches))
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w") as file:
        openvino.save_model(small, str(Path(folder, "network.xml")), compress_to_fp16=False)
        for name in _FILES:
            # A fixed time, so that the same network has the same hash.
            file.writestr(zipfile.ZipInfo(name), Path(folder, name).read_bytes())
    return out.getvalue()


def _int8(recipe: Recipe) -> Forward:
    core = _packages()[0].Core()
    if recipe.network is None:
        raise EncoderError(
            "encoder: precision int8 is not calibrated in this store yet.\n"
            "  `taskgalaxy generate` calibrates it, on the store's own images."
        )
    with zipfile.ZipFile(io.BytesIO(recipe.network)) as file:
        xml, weights = (file.read(name) for name in _FILES)
    return _compiled(core, core.read_model(model=xml, weights=weights), "f32")


def _converted(network: Any, example: Any) -> Any:
    torch: Any = importlib.import_module("torch")
    openvino = _packages()[0]
    network = network.float().cpu().eval()
    with torch.no_grad():  # its own check of the trace takes attention's two equal forms for different
        traced = torch.jit.trace(network, example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=list(example.shape))


def _compiled(core: Any, model: Any, precision: str) -> Forward:
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"})

    def run(pixels: Any) -> Vectors:
        result: Vectors = compiled(pixels.numpy())[0].copy()
        return result

    return run


def _packages(*more: str) -> list[Any]:
    """OpenVINO, and others of its extra."""
    try:
        return [importlib.import_module(name) for name in ("openvino", *more)]
    except ImportError as error:
        raise EncoderError(
            f"encoder: its recipe needs {error.name}, which is not installed.\n"
            "  pip install 'taskgalaxy-ops[openvino]' brings it."
        ) from error
