"""The licences that sources state, as identifiers of a Hugging Face card."""

from __future__ import annotations

import re

UNKNOWN = "unknown"
OTHER = "other"

# Identifiers that the Hub accepts in a card's header; any other licence is "other".
_KNOWN = re.compile(
    r"apache-2\.0|mit|isc|zlib|wtfpl|unlicense|cc0-1\.0|bsd(-[23]-clause)?|mpl-2\.0|gfdl|odbl|odc-by|pddl"
    r"|cc-by-(2\.0|2\.5|3\.0|4\.0)|cc-by-sa-[34]\.0|cc-by-nc-[234]\.0|cc-by-nd-4\.0|cc-by-nc-nd-[34]\.0"
    r"|cc-by-nc-sa-[234]\.0|cdla-permissive-[12]\.0|cdla-sharing-1\.0|a?gpl-3\.0|gpl-2\.0|lgpl-(2\.1|3\.0)"
)
_ALIASES = {"cc0": "cc0-1.0", "apache": "apache-2.0", "gpl-3.0-only": "gpl-3.0", "gpl-2.0-only": "gpl-2.0"}


def identifier(licence: str | None) -> str:
    """The Hub's identifier of a licence as a source wrote it: ``CC BY 4.0`` is ``cc-by-4.0``, none is ``unknown``."""
    if not licence or not licence.strip():
        return UNKNOWN
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    name = _ALIASES.get(name, name)
    return name if _KNOWN.fullmatch(name) else OTHER
