"""A look into a source before it is registered: its first files, and what a scan would leave out. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError, StoreError, UnreadableError
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.settings import IngestSettings, SourceSettings
from taskgalaxy_ops.sources.decoders import Decoders
from taskgalaxy_ops.sources.kinds import kind_of
from taskgalaxy_ops.sources.listing import SourceFile, source_files
from taskgalaxy_ops.text import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFile:
    """A file that was read, or of which its source knows that it cannot be."""

    file: str
    image: str = ""  # "640 x 480 jpeg" of an image; "" of a reject
    reject: str = ""  # the reason and the detail of a reject
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None
    context: str | None = None  # JSON: texts by field


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a scan would find. files: all that it would read, of which the first were; broken: known without reading."""

    source: str
    kind: str
    location: str
    files: int
    first: Sequence[PreviewFile]
    broken: int
    first_broken: Sequence[PreviewFile]
    left_out: Mapping[str, int]  # by kind (``sources.left_out``)


def preview(
    name: str, chosen: SourceSettings, settings: IngestSettings, s3_options: Mapping[str, Any], count: int
) -> Preview:
    """List a source, and read its first ``count`` files. Raises SourceError, StoreError as a scan would."""
    first: list[PreviewFile] = []
    broken: list[PreviewFile] = []
    number = 0
    with source_files(name, chosen, s3_options, settings) as listing, Decoders(settings) as decoders:
        listing.look()
        for file in listing:
            if file.broken:
                number += 1
                if len(broken) < count:
                    broken.append(PreviewFile(file=file.name, reject=f"{file.reason} ({shown(file.broken)})"))
            elif len(first) < count:
                first.append(_read(file, decoders))
        return Preview(
            source=name,
            kind=kind_of(chosen.location)[0],
            location=chosen.location,
            files=len(listing),
            first=first,
            broken=number,
            first_broken=broken,
            left_out=listing.left_out,
        )


def _read(file: SourceFile, decoders: Decoders) -> PreviewFile:
    image, reject = "", ""
    try:
        raw = file.read()
    except UnreadableError as error:
        reject = f"{error.reason} ({shown(error.why)})"
    except NotFoundError as error:
        reject = f"unreadable ({shown(error)})"
    except (SourceError, StoreError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a kind of source raises for a file is this file's reject
        reject = f"unreadable ({shown(error) or type(error).__name__})"
    else:
        found = decoders.inspect(raw).image
        if isinstance(found, Image):
            image = f"{found.width} x {found.height} {found.format}"
        else:
            reject = f"{found[0]} ({shown(found[1])})"
    return PreviewFile(
        file=file.name,
        image=image,
        reject=reject,
        origin=file.origin,
        licence=file.licence,
        attribution=file.attribution,
        context=file.context,
    )
