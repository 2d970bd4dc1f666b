"""Settings of sources and of ingest: where images lie, and which files count as images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taskgalaxy_ops.settings.base import Strict

# What was looked for before content decided. It stays the default's value, so that settings keep their hash.
USUAL_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class S3Settings(Strict):
    """Where S3 is. Its keys come from AWS's own environment variables or files."""

    endpoint_url: str | None = Field(None, description="another service than AWS, e.g. http://127.0.0.1:8333")
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="where the bucket's name stands: in the path or before the host; auto: in the path at another "
        "service than AWS",
        exclude_if=lambda addressing: addressing == "auto",
    )


class SourceSettings(Strict):
    """A named collection of images."""

    location: str = Field(
        description="a folder, s3://bucket/prefix, builtin:photos|documents|shapes|openclipart, or a kind of source "
        "(webdataset, parquet, hf, coco …, or one that an installed package brings), a colon, and what it wants to know"
    )
    options: dict[str, str] = Field(
        {},
        description="what else the kind of source is told, e.g. column: photo",
        exclude_if=lambda options: not options,
    )
    suffixes: tuple[str, ...] = Field(
        USUAL_SUFFIXES,
        description="only files with these; left out (or just these nine): every file that is an image by its suffix, "
        "or, where the suffix says nothing, by its first bytes",
    )
    hidden: bool = Field(
        False, description="files and folders whose name begins with a dot, too", exclude_if=lambda hidden: not hidden
    )
    follow_links: Literal["inside", "anywhere", "never"] = Field(
        "inside",
        description="links to files and folders in a folder: those that stay inside it, all, or none",
        exclude_if=lambda follow: follow == "inside",
    )
    limit: int | None = Field(None, ge=1, description="at most this many files, in order of name")
    copied: bool = Field(
        True,
        alias="copy",
        description="store a copy of each image; false: images stay where they lie, and are read there each time",
        exclude_if=lambda copied: copied,
    )
    licence: str | None = None
    attribution: str | None = None

    @property
    def by_content(self) -> bool:
        """Whether a file's content decides where its suffix says nothing."""
        return set(self.suffixes) == set(USUAL_SUFFIXES)


def _unset(value: object) -> bool:
    return value is None


class IngestSettings(Strict):
    """Which files count as images, how many images make an image shard, and what decoding an image may cost."""

    max_pixels: int = Field(50_000_000, ge=1, description="pixels, width times height")
    min_side: int = Field(32, ge=1, description="pixels, the shorter side")
    shard_images: int = Field(512, ge=1, le=100_000, description="images in an image shard; fixed once it is formed")
    # What came later is left out where it is not set, so that settings keep their hash.
    animated: Literal["first frame", "reject"] = Field(
        "first frame",
        description="of GIF, PNG, WebP and AVIF with several frames, the first is taken, or they are rejected",
        exclude_if=lambda animated: animated == "first frame",
    )
    workers: int | None = Field(
        None, ge=1, le=1024, description="processes that decode; null: the cores that ingest may use", exclude_if=_unset
    )
    seconds_an_image: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="to decode it, then it is rejected",
        exclude_if=lambda seconds: seconds == 60.0,
    )
    megabytes_an_image: int | None = Field(
        None,
        ge=16,
        description="of memory to decode it (Linux), or it is rejected; null: 512, and 64 bytes a pixel of max_pixels",
        exclude_if=_unset,
    )

    @property
    def bytes_an_image(self) -> int:
        """The memory that decoding an image may take."""
        if self.megabytes_an_image is not None:
            return self.megabytes_an_image * 1_000_000
        return 512_000_000 + 64 * self.max_pixels
