"""A release's local copy, as ``publish.fetch`` makes it: training and scoring read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskgalaxy_ops.errors import DamageError, SourceError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.release.formats.layouts import llava_images


@dataclass(frozen=True)
class ReleaseCopy:
    """A release's local copy. folder: its own folder, named as the release."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def manifest(self) -> dict[str, Any]:
        """The release's manifest. Raises DamageError where it cannot be read."""
        try:
            content: dict[str, Any] = json.loads((self.folder / "manifest.json").read_bytes())
        except (OSError, ValueError) as error:
            raise DamageError(
                f"release {self.folder}: its manifest cannot be read ({error}). Fetch it again."
            ) from error
        return content

    @property
    def identity(self) -> str:
        """SHA-256 of its manifest."""
        return sha256_hex((self.folder / "manifest.json").read_bytes())

    def check(self) -> None:
        """Check that every file is there as the manifest says. Raises DamageError."""
        for path, entry in self.manifest()["files"].items():
            file = self.folder / path
            if not file.is_file() or file.stat().st_size != entry["size"] or sha256_of(file) != entry["sha256"]:
                raise DamageError(
                    f"release {self.name}: {path} is missing or damaged in {self.folder}. Remove the folder."
                )

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split, as in LLaVA's JSON. Raises DamageError where the file cannot be read."""
        try:
            samples = json.loads((self.folder / "llava" / f"{split}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DamageError(f"release {self.name}: llava/{split}.json cannot be read ({error}).") from error
        if not isinstance(samples, list):
            raise DamageError(f"release {self.name}: llava/{split}.json is no list.")
        return samples

    def images(self, row: dict[str, Any]) -> list[str]:
        """The absolute paths of a row's images: one, but for questions about several. Raises as ``image``."""
        return [self.image({"image": each}) for each in llava_images(row)]

    def image(self, row: dict[str, Any]) -> str:
        """The absolute path of a row's only image. Raises SourceError for one that is a URI of the store."""
        path = str(row["image"])
        if "://" in path:
            raise SourceError(
                f"release {self.name}: {path} is referred to, and trainers open files. Release again with a higher "
                "release.copy_images_up_to, or train on a folder of `taskgalaxy release export`, which has all images."
            )
        return str((self.folder / path).resolve())

    def table(self, splits: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of the Parquet files of these splits, with these columns only.

        The column ``image`` has only the path, without the bytes; question and answer hold no special tokens.
        """
        wanted = ["image.path" if column == "image" else column for column in columns]
        rows: list[dict[str, Any]] = []
        for split in splits:
            for file in sorted((self.folder / "data").glob(f"{split}-*.parquet")):
                rows += pq.ParquetFile(file).read(columns=wanted).to_pylist()
        for row in rows:
            row.update({name: neutral(row[name]) for name in ("question", "answer") if name in row})
        return rows


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in lower-case hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
