"""Makes a release of thousands of samples of hundreds of task types, for readers to be tried on.

``python tests/trainers/large_release.py FOLDER``; then ``make test-trainers`` with ``TASKGALAXY_RELEASE`` as
``FOLDER/exported/v000001``. The simulated models answer what they know of the seeds' task types from the pixels. What
they do not know, the canned ones answer by hash: the texts say nothing, but there are as many as are wanted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.demo.services import Simulator
from taskgalaxy_ops.extensions import QUESTION_FORMS, RELEASE_FORMATS

IMAGES = {"photos": 16, "documents": 160, "shapes": 48, "openclipart": 60}
TASK_TYPES = 1200
MODELS = ("sim-teacher", "sim-judge-a", "sim-judge-b", "sim-judge-c")
FORMS = (*QUESTION_FORMS.shipped, "plain-de")
SHARES = {form: {"plain": 4, "chain_of_thought": 3}.get(form, 1) for form in FORMS}  # the first two are answered twice


def settings(folder: Path, base_url: str, **changed: Any) -> dict[str, Any]:
    teacher, *judges = ({"name": name, "base_url": base_url, "model": name, "simulated": True} for name in MODELS)
    return {
        "store": (folder / "store").as_uri(),
        "sources": {name: {"location": f"builtin:{name}", "limit": limit} for name, limit in IMAGES.items()},
        "ingest": {"shard_images": 71},
        "write": {"variants": list(FORMS), "shares": SHARES, "answers": 2, "checks": {}},
        "release": {"cap": 12, "test": 0.05, "formats": list(RELEASE_FORMATS.shipped)},
        "run": {"units_a_request": 40},
        "budget": {"max_calls": None, "max_cost": None},
        "taxonomy": {"approval": "off"},
        "teacher": teacher,
        "judges": judges,
        **changed,
    }


def make(folder: Path) -> int:
    """Make the release in ``folder``, and export it to ``exported``; returns the exit code of what failed, or 0."""
    os.environ.setdefault("TASKGALAXY_CACHE", str(folder / "sources"))
    file = folder / "taskgalaxy.yaml"
    folder.mkdir(parents=True, exist_ok=True)

    def run(base_url: str, k: int, *commands: Sequence[str]) -> int:
        file.write_text(yaml.safe_dump(settings(folder, base_url, match={"k": k})), encoding="utf-8")
        codes = (main([*command, "--settings", str(file), "--quiet"]) for command in commands)
        return next((code for code in codes if code), 0)

    with Simulator(folder / "seeing") as seeing, Simulator(folder / "canned", arguments=("--canned",)) as canned:
        grow = ("taxonomy", "expand", "--up-to", str(TASK_TYPES))
        export = ("release", "export", "--to", str(folder / "exported"))
        failed = run(seeing.base_url, 210, ["ingest"], ["generate"], grow)
        return failed or run(canned.base_url, 300, ["generate"], ["release"], export)


if __name__ == "__main__":
    sys.exit(make(Path(sys.argv[1]).absolute()))
