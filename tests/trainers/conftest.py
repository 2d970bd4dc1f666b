"""Which Pythons hold LLaMA-Factory, ms-swift and energon: their pins agree neither with ours nor with each other's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from releases import released, workspace

from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.export import export

# Read when this file is loaded: the suite takes all TASKGALAXY_ variables away before it begins.
_PYTHONS = [Path(name).absolute() for name in os.environ.get("TASKGALAXY_TRAINERS", "").split(":") if name]
_RELEASE = os.environ.get("TASKGALAXY_RELEASE")
RELEASE = Path(_RELEASE).absolute() if _RELEASE else None  # an exported folder, to be loaded in place of a small one
ASKED_FOR = bool(_PYTHONS or RELEASE)  # what `make test` has no time for

ELSEWHERE = {"llamafactory": "llamafactory", "ms-swift": "swift", "energon": "megatron"}  # with the module of each


@pytest.fixture(scope="session")
def pythons() -> dict[str, Path]:
    """The first of TASKGALAXY_TRAINERS (Pythons, separated by colons) that has each library."""
    found: dict[str, Path] = {}
    for trainer, package in ELSEWHERE.items():
        for python in _PYTHONS:
            looked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
            if subprocess.run([str(python), "-c", looked], check=False).returncode == 0:
                found.setdefault(trainer, python)
    return found


def exported(root: Path, images: int, formats: Sequence[str], /, **chosen: Any) -> Path:
    """The exported folder that TASKGALAXY_RELEASE names, or that of a small release. chosen: as `released` has it."""
    if RELEASE:
        return RELEASE
    store = workspace(root / "w")
    released(store, images, copy_images_up_to=0, **chosen)
    return export(store, publish.published(store)[-1], root / "out", formats).folder
