"""What each task needs, loaded once in the process that tasks fork from: a second of CPU less for every task."""

from __future__ import annotations

import contextlib
from importlib import import_module

from taskgalaxy_ops.models import http
from taskgalaxy_ops.storage import s3

# No connection, and no thread but those of BLAS and allocators, which know forks; onnxruntime would start one.
_MODULES = ("aiohttp", "boto3", "openai", "pandas", "pyarrow.dataset", "pyarrow.parquet", "tokenizers")


def preload() -> None:
    """Import libraries, and read certificates and descriptions of services; what is not installed is left out."""
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            import_module(name)
    http.certificates()
    s3.service_descriptions()
