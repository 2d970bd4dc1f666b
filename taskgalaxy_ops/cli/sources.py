"""`sources`: which there are, and a look into one before it is registered."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, loaded, positive, say, workspace_of
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.reports.text import sources as sources_text
from taskgalaxy_ops.settings import Settings, SourceSettings
from taskgalaxy_ops.sources.kinds import SOURCES, kind_of
from taskgalaxy_ops.sources.overview import summaries
from taskgalaxy_ops.sources.preview import preview
from taskgalaxy_ops.storage import connect, s3_options_from_environment
from taskgalaxy_ops.storage.registry import Registry


def add(add_command: AddCommand) -> None:
    """Add `sources` and `sources preview`."""
    sub = add_command("sources", _sources, "all sources; or, `sources preview`, a look into one: writes nothing")
    sub.epilog = f"Kinds of locations: {', '.join(SOURCES.shipped)} (docs/sources.md)."
    sub.add_argument("action", nargs="?", choices=["list", "preview"], default="list", help="default: %(default)s")
    sub.add_argument(
        "source", nargs="?", metavar="NAME | LOCATION", help="of preview: a source of the settings, or where"
    )
    sub.add_argument("--limit", type=positive, default=20, help="of preview: files to read; default: %(default)s")
    sub.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of preview: of its kind; repeatable",
    )


def _sources(chosen: argparse.Namespace) -> int:
    if chosen.action == "preview":
        return _preview(chosen)
    if chosen.source or chosen.option:
        raise SourceError(
            f"sources list: takes nothing more. For a look into one: sources preview {chosen.source or ''}"
        )
    found = summaries(workspace_of(chosen))
    say(chosen, {"sources": [asdict(each) for each in found]}, sources_text.listed(found))
    return 0


def _preview(chosen: argparse.Namespace) -> int:
    settings = loaded(chosen)
    s3_options = s3_options_from_environment(settings.s3.endpoint_url, settings.s3.region, settings.s3.addressing)
    name, source = chosen_source(settings, s3_options, chosen.source, chosen.option)
    found = preview(name, source, settings.ingest, s3_options, chosen.limit)
    say(chosen, asdict(found), sources_text.previewed(found))
    return 0


def chosen_source(
    settings: Settings, s3_options: Mapping[str, Any], what: str | None, options: list[str]
) -> tuple[str, SourceSettings]:
    """The name and the settings of a source: one of the settings, a location, or one that is registered alone.

    Raises SourceError.
    """
    if not what:
        raise SourceError("sources preview: name a source of the settings, or a location such as webdataset:/shards.")
    if odd := [option for option in options if "=" not in option]:
        raise SourceError(f"--option {odd[0]}: write NAME=VALUE.")
    given = dict(option.split("=", 1) for option in options)
    known = settings.sources.get(what)
    if known is None and kind_of(what)[0] == "file" and not Path(kind_of(what)[1]).exists():
        scan = Registry(connect(settings.store, **s3_options)).scans().get(what)
        known = SourceSettings(location=scan.location, **scan.settings) if scan else None
    if known is None:
        return "preview", SourceSettings(location=what, options=given)
    return what, known.model_copy(update={"options": {**known.options, **given}})
