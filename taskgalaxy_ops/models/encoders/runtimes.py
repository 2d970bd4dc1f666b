"""Runs a torch network's image side by torch or by OpenVINO, in float32 or bfloat16.

bfloat16 pays where the processor computes in it (Intel since AVX512-BF16 and AMX, AMD since Zen 4, GPUs); elsewhere
torch emulates it, many times slower than float32, and OpenVINO would compute in float32 without a word, which is
refused here: another machine would give other vectors under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import Recipe, Vectors

Forward = Callable[[Any], Vectors]  # pixels, a torch tensor (batch, 3, side, side), to vectors (batch, dim)

_RUNTIMES = {None, "torch", "openvino"}
_PRECISIONS = {None, "bf16"}


def forward(network: Any, recipe: Recipe, example: Any) -> Forward:
    """What computes vectors from pixels by the recipe's runtime and precision.

    network: a torch module on its device; example: pixels of the one shape that will be asked for.

    Raises EncoderError for a runtime that is unknown or not installed, or a precision that it does not have here.
    """
    if recipe.runtime not in _RUNTIMES or recipe.precision not in _PRECISIONS:
        raise EncoderError(
            f"encoder: a torch network runs by torch or openvino, in fp32 or bf16, and not by "
            f"{recipe.runtime or 'torch'} in {recipe.precision or 'fp32'}.\n"
            "  Set encoder.runtime and encoder.precision to one of these, or leave them unset."
        )
    if recipe.runtime == "openvino":
        return _openvino(network, recipe, example)
    return by_torch(network, recipe.precision)


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
    try:
        import openvino
    except ImportError as error:
        raise EncoderError(
            "encoder: its recipe is to run by openvino, which is not installed.\n"
            "  pip install 'taskgalaxy-ops[openvino]' brings it."
        ) from error
    core = openvino.Core()
    if recipe.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EncoderError(
            "encoder: its recipe is openvino in bf16, and this machine's processor does not compute in bf16.\n"
            "  Embed on a machine that does (`taskgalaxy doctor --encoder` says so), or leave encoder.precision unset."
        )
    model = openvino.convert_model(network.float().cpu().eval(), example_input=example, input=list(example.shape))
    hints = {"INFERENCE_PRECISION_HINT": recipe.precision or "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", hints)

    def run(pixels: Any) -> Vectors:
        result: Vectors = compiled(pixels.numpy())[0].copy()
        return result

    return run
