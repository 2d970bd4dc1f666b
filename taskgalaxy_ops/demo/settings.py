"""The settings of the demo and the study, which are the package's or the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_DEMO_SETTINGS = Path(__file__).with_name("demo.yaml")
STUDY_SETTINGS = Path(__file__).with_name("study.yaml")
OWN_STORE = "s3://taskgalaxy/own-"  # and a hash: in the demo's S3


def demo_settings(base_url: str, own: dict[str, Any]) -> dict[str, Any]:
    text = _DEMO_SETTINGS.read_text(encoding="utf-8").replace("BASE_URL", base_url or "http://127.0.0.1/v1")
    settings: dict[str, Any] = yaml.safe_load(text)
    return {**settings, **own}


def settings_for_airflow(raw: dict[str, Any]) -> dict[str, Any]:
    """The settings as tasks read them, who may stand in another folder; nobody is there to approve a taxonomy."""
    settings = {**raw, "taxonomy": {"approval": "off", **raw.get("taxonomy", {})}}
    settings["airflow"] = {**demo_settings("", {})["airflow"], **raw.get("airflow", {})}
    sources = {name: dict(source) for name, source in raw["sources"].items()}
    for source in sources.values():
        if ":" not in source["location"]:
            source["location"] = str(Path(source["location"]).expanduser().resolve())
    return {**settings, "sources": sources}
