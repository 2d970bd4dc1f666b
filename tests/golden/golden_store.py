"""Makes tests/golden/store-2.json: a small whole store of layout 2, key by key. Run by hand, once a layout:

    python tests/golden/golden_store.py

The file is the promise that later versions keep: they read it, and find nothing left to compute or to ask.
``store.json`` is one of layout 1, which they can upgrade.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.simulator.config import SimulatorConfig
from taskgalaxy_ops.simulator.serve import running
from taskgalaxy_ops.sources.builtin import build
from taskgalaxy_ops.workspace import Workspace

HERE = Path(__file__).parent
FILE = HERE / "store-2.json"


def golden_settings(store: str, location: str, base_url: str = "http://127.0.0.1:9/v1") -> Settings:
    """The settings under which the golden store was made; addresses are part of no key."""

    def model(name: str) -> dict[str, Any]:
        return {"name": name, "base_url": base_url, "model": name, "simulated": True}

    prompt = str(HERE / "prompt.md")
    return parse_settings(
        {
            "store": store,
            "sources": {"shapes": {"location": location, "licence": "MIT"}},
            "taxonomy": {"seeds": str(HERE / "seeds.yaml")},
            "match": {"k": 4},
            "ingest": {"shard_images": 2},
            "write": {"variants": ["plain", "chain_of_thought"]},
            "prompts": dict.fromkeys(("filter", "write_plain", "write_chain_of_thought", "vote", "expand"), prompt),
            "teacher": model("sim-teacher"),
            "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
        }
    )


def unpack(folder: Path, file: Path) -> Settings:
    """A stored golden store in a folder; the settings that open it."""
    for key, raw in json.loads(file.read_text("utf-8")).items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(raw))
    return golden_settings(folder.as_uri(), "gone")


def golden_workspace(folder: Path) -> Workspace:
    """The golden store, unpacked into a folder and opened by the code of today."""
    return Workspace.open(unpack(folder, FILE))


def main() -> None:
    with tempfile.TemporaryDirectory() as name, running(SimulatorConfig(wrong_share=0.3)) as base_url:
        folder = Path(name)
        images = build("shapes", folder / "images", 3)
        workspace = Workspace.open(golden_settings((folder / "store").as_uri(), str(images), base_url))
        pipeline.ingest(workspace, "shapes")
        assert pipeline.generate(workspace).pending == 0
        publish.publish(workspace)
        objects = {
            listed.key: base64.b64encode(workspace.store.get(listed.key)).decode()
            for listed in workspace.store.list("")
        }
    FILE.write_text(json.dumps(objects, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
