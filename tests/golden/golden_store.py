"""Makes tests/golden/store.json: a small whole store of layout 1, key by key. Run by hand, once a layout:

    python tests/golden/golden_store.py

The file is the promise that later versions keep: they read it, and find nothing left to compute or to ask.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from taskgalaxy_ops import pipeline, publishing
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.models.simulated.config import SimulatorConfig
from taskgalaxy_ops.models.simulated.serve import running
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.sources.builtin import build

HERE = Path(__file__).parent
FILE = HERE / "store.json"


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


def golden_galaxy(folder: Path) -> Galaxy:
    """The golden store, unpacked into a folder and opened by the code of today."""
    for key, raw in json.loads(FILE.read_text("utf-8")).items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(raw))
    return Galaxy.open(golden_settings(folder.as_uri(), "gone"))


def main() -> None:
    with tempfile.TemporaryDirectory() as name, running(SimulatorConfig(wrong_share=0.3)) as base_url:
        folder = Path(name)
        images = build("shapes", folder / "images", 3)
        galaxy = Galaxy.open(golden_settings((folder / "store").as_uri(), str(images), base_url))
        pipeline.ingest(galaxy, "shapes")
        assert pipeline.generate(galaxy).pending == 0
        publishing.publish(galaxy)
        objects = {
            listed.key: base64.b64encode(galaxy.store.get(listed.key)).decode() for listed in galaxy.store.list("")
        }
    FILE.write_text(json.dumps(objects, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
