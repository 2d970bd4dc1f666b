"""Copy what lies in a store to files: whole or not at all, and only where it is not there yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.release.build import MANIFEST
from taskgalaxy_ops.release.local_copy import sha256_of
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store, in_parts


class Made(Protocol):
    """What is read of a release's entry in the log."""

    @property
    def version(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def manifest_sha256(self) -> str: ...


def manifest_of(store: Store, one: Made) -> bytes:
    """A release's manifest. Raises DamageError where it is not the one that the log names."""
    raw = store.get(keys.release(one.version) + MANIFEST)
    if sha256_hex(raw) != one.manifest_sha256:
        raise DamageError(f"release {one.name}: its manifest was changed. Run `taskgalaxy verify`.")
    return raw


def copy_listed(store: Store, one: Made, path: str, entry: Mapping[str, Any], target: Path) -> None:
    """Copy a file of a release, unless it is there and correct. Raises DamageError where it differs from its entry."""
    local = target / path
    if local.is_file() and local.stat().st_size == entry["size"] and sha256_of(local) == entry["sha256"]:
        return
    write_file(local, in_parts(store, keys.release(one.version) + path))
    if sha256_of(local) != entry["sha256"]:
        local.unlink()
        raise DamageError(f"release {one.name}: {path} is not what the manifest says. Run `taskgalaxy verify`.")


def write_file(local: Path, parts: Iterable[bytes]) -> None:
    """Write a file and rename it into place, so that what is there is whole."""
    local.parent.mkdir(parents=True, exist_ok=True)
    part = local.with_name(f"{local.name}.part")
    with part.open("wb") as file:
        file.writelines(parts)
    part.replace(local)
