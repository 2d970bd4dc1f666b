"""The package that docs/extending.md shows, installed from that very page, and the pipeline run with it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.galaxies import Models

from taskgalaxy_ops.extensions import QUESTION_FORMS

ROOT = Path(__file__).parents[2]
_SNIPPET = re.compile(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPES = [
    f"shapes & patterns~shape recognition~{name}"
    for name in ("shape naming", "shape colour identification", "shape position", "corner counting")
]

# What a user's own script would do. Prints one JSON object.
_RUN = """
import json, sys
from pathlib import Path

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.jobs import Order, prepare
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.release.base_data.checking import checked_rows
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import load_settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

workspace = Workspace.open(load_settings(Path(sys.argv[1])))
receipt = pipeline.ingest(workspace, "archive")
claims = list(workspace.registry.claims())
result = pipeline.generate(workspace)
variants = sorted({pair.variant for pair in RunResults(workspace, result).samples})
released = publish.publish(workspace).release
copy = finetune_run.release_copy(workspace, None)
made = {path.name: path.read_text("utf-8") for path in (copy.folder / "csv").iterdir()}
job = prepare(Order(recipe=load_recipe(sys.argv[2]), release=copy), finetune_run.root(workspace))
gone = json.loads((copy.folder / "llava" / "train.json").read_text("utf-8"))[0]["image"].split("/")[-1].split(".")[0]
withdrawn = take_down(workspace, [gone]).releases
prefix = keys.release(released.version)
(base,) = checked_rows("own", "questions_csv", Path(sys.argv[3]))
print(json.dumps({
    "base": [base[1].images, base[2]],
    "images": receipt.images,
    "attributions": sorted({claim.attribution for claim in claims}),
    "encoder": workspace.encoder_identity["name"],
    "encoded": workspace.encoder.passes,
    "variants": variants,
    "pending": result.pending,
    "made_of": StageKeys(workspace).asking("write", "0" * 16, 0).made_of,
    "manifest": copy.manifest(),
    "csv": made,
    "conversations": copy.rows("train"),
    "gone": gone,
    "withdrawn": withdrawn,
    "csv_after": workspace.store.get(prefix + "csv/train.csv").decode(),
    "card": workspace.store.get(prefix + "README.md").decode(),
    "job": {"command": job.command, "files": {name: raw.decode() for name, raw in job.files.items()}},
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed the page's package."""
    folder = tmp_path_factory.mktemp("extras")
    snippets = dict(_SNIPPET.findall((ROOT / "docs" / "extending.md").read_text("utf-8")))
    assert len(snippets) == 7
    for name, text in snippets.items():
        assert name == "pyproject.toml" or len(text.splitlines()) < 40, f"{name}: at most 40 lines, its name included"
        file = folder / "package" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    (folder / "package" / "galaxy_extras" / "__init__.py").touch()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(folder / "package")], check=True, timeout=120)
    return folder / "site"


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def settings(folder: Path, models: Models, pictures: Path, **changes: Any) -> Path:
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        archive.comment = b"The archive's makers"
        for file in sorted((pictures / "shapes").glob("*.png")):
            archive.write(file, f"inside/{file.name}")

    def model(name: str) -> dict[str, Any]:
        return {"name": name, "base_url": models.base_url, "model": name, "simulated": True}

    (folder / "seeds.yaml").write_text(json.dumps(_TYPES), "utf-8")
    raw = {
        "store": f"file://{folder / 'store'}",
        "sources": {"archive": {"location": f"zip:{folder / 'pictures.zip'}"}},
        "taxonomy": {"seeds": str(folder / "seeds.yaml")},
        "encoder": {"name": "colours"},
        "teacher": model("sim-teacher"),
        "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
        "write": {"variants": ["plain", "short_answer"]},
        "release": {"formats": ["llava", "parquet", "csv"], "validation": 0, "test": 0, "near_duplicate_bits": -1},
        "finetune": {"folder": str(folder / "finetune")},
        **changes,
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    return folder / "settings.yaml"


_RECIPE = {
    "name": "own",
    "trainers": ["script"],
    "base": {"model": "owner/model"},
    "variants": ["short_answer"],
    "learning_rate": 1e-4,
    "global_batch": 4,
    "device_batch": 4,
}


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))[1:]


def test_the_pages_package_takes_part_in_every_step(
    installed: Path, tmp_path: Path, models: Models, pictures: Path
) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(_RECIPE), "utf-8")
    (tmp_path / "run.py").write_text(_RUN, "utf-8")
    (tmp_path / "own.csv").write_text("id,image,question,answer\n1,a.png,What?,A ring.\n", "utf-8")
    chosen = settings(tmp_path, models, pictures)
    ended = run(installed, str(tmp_path / "run.py"), str(chosen), str(tmp_path / "own.yaml"), str(tmp_path / "own.csv"))
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)

    assert (found["images"], found["attributions"]) == (4, ["The archive's makers"])
    assert (found["encoder"], found["pending"]) == ("colours", 0)
    assert found["encoded"] == 4 + len(_TYPES)

    assert found["variants"] == ["plain", "short_answer"]
    assert found["made_of"]["question form short_answer"] == "version 1"
    asked = [row["conversations"][0]["value"] for row in found["conversations"]]
    assert {text.endswith("using a single word or phrase.") for text in asked} == {True, False}

    made = found["manifest"]["made_with"]
    assert (made["release_formats"], made["question_forms"]) == ({"csv": "1"}, {"short_answer": "1"})
    assert {row[0] for row in rows(found["csv"]["train.csv"])} == {row["id"] for row in found["conversations"]}
    assert "csv/train.csv" in found["manifest"]["files"] and "`csv/`: a table a split." in found["card"]
    held = [row[0] for row in rows(found["csv"]["train.csv"]) if found["gone"] in row[1]]
    assert held and found["withdrawn"] == {"v000001": len(held)}
    assert rows(found["csv_after"]) == [row for row in rows(found["csv"]["train.csv"]) if row[0] not in held]

    assert found["base"] == [["a.png"], [["human", "What?"], ["gpt", "A ring."]]]
    assert found["job"]["command"][2].startswith("exec python3")
    data = json.loads(found["job"]["files"]["data/train.json"])
    assert data and all("single word or phrase" in row["conversations"][0]["value"] for row in data)


def test_an_unknown_name_is_told_with_the_package_that_brings_others(
    installed: Path, tmp_path: Path, models: Models, pictures: Path
) -> None:
    changes = {"write": {"variants": ["shorter"]}, "encoder": {"name": "colors"}}
    file = settings(tmp_path, models, pictures, **changes)
    ended = run(installed, "-m", "taskgalaxy_ops.cli", "plan", "--settings", str(file))
    assert ended.returncode != 0
    known = ", ".join(map(repr, QUESTION_FORMS.shipped))
    assert (
        f"write.variants.0 is 'shorter': Input should be {known} or 'short_answer' "
        "(installed packages bring short_answer (galaxy-extras 1.0))" in ended.stderr
    )
    assert "encoder.name is 'colors': Input should be 'conse', 'open_clip', 'transformers' or 'colours'" in ended.stderr
