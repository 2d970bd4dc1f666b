"""The source ``openclipart``: drawings in the public domain, as Debian packages them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources.builtin import Made

FOLDER = Path("/usr/share/openclipart")
_METADATA = 20_000  # characters at an SVG's start, which contain its metadata


def images(limit: int | None, seed: int, folder: Path = FOLDER) -> Iterator[Made]:
    """PNG drawings, picked by hash. Their truth: title, keywords and author, if the SVG of the same name has them.

    The subfolders' names (``animals/birds``) are subjects. Raises SourceError if there is no PNG.
    """
    drawings = sorted((folder / "png").rglob("*.png"))
    if not drawings:
        raise SourceError(f"builtin:openclipart: {folder}/png holds no PNG. Run `apt-get install openclipart-png`.")
    names = {path: path.relative_to(folder / "png") for path in drawings}
    drawings.sort(key=lambda path: hashlib.sha256(f"{seed}/{names[path].as_posix()}".encode()).digest())
    for path in drawings[:limit]:
        name = names[path]
        truth = {"subjects": list(name.parts[:-1]), **_metadata_of(folder / "svg" / name.with_suffix(".svg"))}
        truth.setdefault("title", path.stem.replace("_", " "))
        author = truth.get("author") or "Open Clip Art Library"
        yield Made(
            file="-".join(name.parts),
            raw=path.read_bytes(),
            kind="clip art",
            truth=truth,
            licence="CC0-1.0",
            attribution=str(author),
            origin="https://openclipart.org/",
        )


def _metadata_of(drawing: Path) -> dict[str, str | list[str]]:
    """Title, keywords and author from an SVG's metadata (RDF), as far as it has them.

    Regular expressions read them near the file's start, because files from elsewhere are not given to an XML parser.
    """
    try:
        text = drawing.read_text(encoding="utf-8", errors="replace")[:_METADATA]
    except OSError:
        return {}
    metadata: dict[str, str | list[str]] = {}
    if title := re.search(r"<dc:title>\s*([^<]+?)\s*</dc:title>", text):
        metadata["title"] = title[1]
    if keywords := re.search(r"<dc:subject>(.*?)</dc:subject>", text, re.DOTALL):
        metadata["keywords"] = re.findall(r"<rdf:li>\s*([^<]+?)\s*</rdf:li>", keywords[1])
    if author := re.search(r"<dc:creator>.*?<dc:title>\s*([^<]+?)\s*</dc:title>", text, re.DOTALL):
        metadata["author"] = author[1]
    return metadata
