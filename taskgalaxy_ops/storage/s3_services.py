"""What S3 services call their own settings, for the messages when a promise of the store cannot be had.

A service is known by its endpoint's host, else by the ``Server`` header of its replies. docs/operations.md has the same
services in a table, with what each does differently and where that is written.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Service:
    """A service, and what to do where it ignores or refuses ``If-None-Match``, or keeps versions."""

    name: str
    hosts: tuple[str, ...] = ()  # ends of host names
    server: str = ""  # the beginning of its Server header
    conditional: str
    versions: str


_OTHER_BUCKET = "or use a bucket that never had it"
_SUSPEND = (
    "Suspend it (`aws s3api put-bucket-versioning --bucket NAME --versioning-configuration Status=Suspended`, with "
    f"this endpoint) and delete the older versions, {_OTHER_BUCKET}."
)
_ELSEWHERE = (
    "Use a service with conditional writes for the store (AWS S3, SeaweedFS, MinIO, Ceph, R2); sources may lie here."
)

SERVICES = (
    S3Service(
        name="AWS S3",
        hosts=("amazonaws.com", "amazonaws.com.cn"),
        server="AmazonS3",
        conditional="AWS S3 has conditional writes: does a proxy between drop the header `If-None-Match`?",
        versions=_SUSPEND,
    ),
    S3Service(
        name="Cloudflare R2",
        hosts=("r2.cloudflarestorage.com",),
        server="cloudflare",
        conditional="R2 has conditional writes: does a proxy between drop the header `If-None-Match`?",
        versions=_SUSPEND,
    ),
    S3Service(
        name="Backblaze B2",
        hosts=("backblazeb2.com",),
        conditional=f"Backblaze B2 has no conditional writes. {_ELSEWHERE}",
        versions="In B2's console, set the bucket's lifecycle to `Keep only the last version of the file`.",
    ),
    S3Service(
        name="Google Cloud Storage",
        hosts=("storage.googleapis.com",),
        server="UploadServer",
        conditional="Google Cloud Storage takes conditional writes only by its own header "
        f"`x-goog-if-generation-match`, which it refuses beside those of S3. {_ELSEWHERE}",
        versions="Switch it off, and soft deletion with it (`gcloud storage buckets update gs://NAME --no-versioning "
        f"--clear-soft-delete`), and delete the older versions, {_OTHER_BUCKET}.",
    ),
    S3Service(
        name="MinIO",
        server="MinIO",
        conditional="MinIO has conditional writes: update the server, unless a proxy between drops `If-None-Match`.",
        versions=f"Suspend it (`mc version suspend ALIAS/NAME`) and delete the older versions, {_OTHER_BUCKET}.",
    ),
    S3Service(
        name="Ceph",
        server="Ceph",
        conditional="Ceph's gateway has conditional writes: does a proxy between drop the header `If-None-Match`?",
        versions=_SUSPEND,
    ),
    S3Service(
        name="SeaweedFS",
        server="SeaweedFS",
        conditional="SeaweedFS has conditional writes: update it, unless a proxy between drops `If-None-Match`.",
        versions=_SUSPEND,
    ),
)
UNKNOWN = S3Service(
    name="this service",
    conditional="Use a service with conditional writes (AWS S3, SeaweedFS, MinIO, Ceph, R2), or switch them on in this "
    "one.",
    versions=_SUSPEND,
)


def service(host: str, server: str) -> S3Service:
    """The service at a host (AWS: ""), or by its Server header. ``UNKNOWN`` if it is none of those known here."""
    named = host or "amazonaws.com"
    for each in SERVICES:
        if any(named == end or named.endswith(f".{end}") for end in each.hosts):
            return each
    known = (each for each in SERVICES if each.server and server.lower().startswith(each.server.lower()))
    return next(known, UNKNOWN)
