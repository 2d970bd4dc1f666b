"""The one way to turn a value into bytes, and bytes into a fingerprint. Every key of the store depends on it.

Canonical JSON: keys sorted, no blanks, UTF-8, every string in Unicode NFC, fields that are None left out (so that a
field added later changes no key), no NaN. A fingerprint is the SHA-256 of the canonical JSON of
``{"kind": kind, "of": value, "v": 1}``, in lower-case hex.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from enum import Enum
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _canonical(value: Any) -> Any:
    # Every row and every request item passes through here; nearly all values are of these exact types.
    kind = type(value)
    if kind is str:
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        fields = {}
        for k, v in value.items():
            if v is not None:
                name = k if type(k) is str and k.isascii() else _canonical(str(k))
                fields[name] = v if type(v) is str and v.isascii() else _canonical(v)
        return fields
    match value:
        case Enum():
            return _canonical(value.value)
        case int():
            return value
        case str():
            return unicodedata.normalize("NFC", value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} has no canonical form")
            return int(value) if value.is_integer() and abs(value) < 2**53 else value
        case Mapping():
            return _canonical(dict(value))
        case list() | tuple():
            return [_canonical(v) for v in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _canonical({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    raise TypeError(f"{kind.__name__} has no canonical form")


def canonical_json(value: Any) -> bytes:
    """The canonical UTF-8 form of a JSON-like value, a record (dataclass) or a list of them.

    Raises TypeError for other types and ValueError for a float that is not finite.
    """
    return _ENCODER.encode(_canonical(value)).encode()


def fingerprint(kind: str, value: Any) -> str:
    """SHA-256 (64 hex digits) of a value and its kind, so that values of two kinds never share a key.

    Raises TypeError and ValueError as ``canonical_json`` does.
    """
    return sha256_hex(canonical_json({"kind": kind, "of": value, "v": 1}))


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes, in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone. Shares of items are drawn with it, so that a run repeats."""
    digest = hashlib.sha256("\x1f".join(str(p) for p in parts).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
