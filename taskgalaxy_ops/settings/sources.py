"""Settings of sources and of ingest: where images lie, and which files count as images."""

from __future__ import annotations

from pydantic import Field

from taskgalaxy_ops.settings.base import Strict


class S3Settings(Strict):
    """Where S3 is. Its keys come from AWS's own environment variables or files."""

    endpoint_url: str | None = Field(None, description="another service than AWS, e.g. http://127.0.0.1:8333")
    region: str | None = None


class SourceSettings(Strict):
    """A named collection of images."""

    location: str = Field(
        description="a folder, s3://bucket/prefix, builtin:photos|documents|shapes|openclipart, or a kind of source "
        "that an installed package brings, a colon, and what it wants to know"
    )
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
    limit: int | None = Field(None, ge=1, description="at most this many files, in order of name")
    licence: str | None = None
    attribution: str | None = None


class IngestSettings(Strict):
    """Which files count as images, and how many images make an image shard."""

    max_pixels: int = Field(50_000_000, ge=1, description="pixels, width times height")
    min_side: int = Field(32, ge=1, description="pixels, the shorter side")
    shard_images: int = Field(512, ge=1, le=100_000, description="images in an image shard; fixed once it is formed")
