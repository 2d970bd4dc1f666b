"""A release as files, as ``publishing.fetch`` copies it: what training and scoring read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskgalaxy_ops.errors import DamageError, SourceError
from taskgalaxy_ops.hashing import sha256_hex

_TOKENS = re.compile(
    r"<(\s*/?\s*(?:image|video|audio|img|IMG_CONTEXT|s|unk|pad|bos|eos|box|ref|quad)\s*)>|<(\|[^|<>]{0,40}\|)>", re.I
)


@dataclass(frozen=True)
class ReleaseCopy:
    """A release's local copy, as ``publishing.fetch`` makes it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def manifest(self) -> dict[str, Any]:
        """Raises DamageError where the copy is not whole."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "manifest.json").read_bytes())
        except (OSError, ValueError) as error:
            raise DamageError(
                f"release {self.folder}: its manifest cannot be read ({error}). Fetch it again."
            ) from error
        return found

    @property
    def identity(self) -> str:
        """SHA-256 of its manifest."""
        return sha256_hex((self.folder / "manifest.json").read_bytes())

    def check(self) -> None:
        """Every file that training and scoring read is there as the manifest says. Raises DamageError."""
        for path, entry in self.manifest()["files"].items():
            file = self.folder / path
            if not file.is_file() or file.stat().st_size != entry["size"] or _sha256(file) != entry["sha256"]:
                raise DamageError(
                    f"release {self.name}: {path} is missing or damaged in {self.folder}. Remove the folder."
                )

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split, as LLaVA's JSON has them. Raises DamageError."""
        try:
            found = json.loads((self.folder / "llava" / f"{split}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DamageError(f"release {self.name}: llava/{split}.json cannot be read ({error}).") from error
        if not isinstance(found, list):
            raise DamageError(f"release {self.name}: llava/{split}.json is no list.")
        return found

    def image(self, row: dict[str, Any]) -> str:
        """Absolute path of a row's image. Raises SourceError for one that lies in no folder."""
        path = str(row["image"])
        if "://" in path:
            raise SourceError(
                f"release {self.name}: {path} is referred to, and trainers open files. Mount it and rewrite the paths, "
                "or release again with a higher release.copy_images_up_to."
            )
        return str((self.folder / path).resolve())

    def table(self, splits: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of the Parquet files, these columns alone; ``image`` gives its path alone, texts come ``plain``."""
        wanted = ["image.path" if column == "image" else column for column in columns]
        rows: list[dict[str, Any]] = []
        for split in splits:
            for file in sorted((self.folder / "data").glob(f"{split}-*.parquet")):
                rows += pq.ParquetFile(file).read(columns=wanted).to_pylist()
        for row in rows:
            row.update({name: plain(row[name]) for name in ("question", "answer") if name in row})
        return rows


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def plain(text: str) -> str:
    """The text without anything that a tokenizer takes for a token of its own: brackets become look-alikes."""
    return _TOKENS.sub(lambda found: f"‹{found[1] or found[2]}›", text)
