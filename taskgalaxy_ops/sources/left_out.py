"""What a scan leaves out of a source, counted by kind, and the setting that would include it.

Counts are a mapping from kind to number, as the registry keeps it: ``{"hidden": 2, "suffix .txt": 1}``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

HIDDEN = "hidden"
LINK = "link"
FILE_OUTSIDE = "link to a file outside"
FOLDER_OUTSIDE = "link to a folder outside"
BROKEN_LINK = "broken link"
FOLDER_AGAIN = "link to a folder that is read anyway"
FOLDER_CLOSED = "folder that may not be opened"
SPECIAL = "neither file nor folder"
REPLACED = "file that another of the same name replaces"
METADATA = "metadata of a sample"
METADATA_UNREAD = "metadata that cannot be read"
TAR_LINK = "link in a tar"
NO_ENTRY_IMAGE = "entry without an image"
NOT_NAMED = "image that no entry names"
ROW_WITHOUT = "row without an image"
OVER_LIMIT = "over the limit"
NO_IMAGE = "no known image"
PAGE = "further page or frame"
OVER_PAGES = "page over the limit of its document"
SUFFIX = "suffix "  # and the suffix

_SUFFIXES = 12  # that are counted each by itself
_LONGEST = 10  # letters of a suffix that is named
_OTHER_SUFFIXES = "others"
_NO_SUFFIX = "none"

# Known only once files were read, or of those that were not over the limit; a listing alone says the rest.
_BY_READING = frozenset((OVER_LIMIT, NO_IMAGE, PAGE))

# In this order: one, several, and the setting that would include them; "": none would.
_WORDS = {
    HIDDEN: ("hidden", "hidden", "hidden: true"),
    LINK: ("link", "links", "follow_links: inside"),
    FILE_OUTSIDE: ("link to a file outside", "links to files outside", "follow_links: anywhere"),
    FOLDER_OUTSIDE: ("link to a folder outside", "links to folders outside", "follow_links: anywhere"),
    BROKEN_LINK: ("broken link", "broken links", ""),
    FOLDER_AGAIN: ("link to a folder that is read anyway", "links to folders that are read anyway", ""),
    FOLDER_CLOSED: ("folder that may not be opened", "folders that may not be opened", "its rights"),
    SPECIAL: ("neither file nor folder", "neither files nor folders", ""),
    REPLACED: ("file that another of the same name replaces", "files that another of the same name replaces", ""),
    METADATA: ("member with metadata", "members with metadata", ""),
    METADATA_UNREAD: (
        "member with metadata that cannot be read",
        "members with metadata that cannot be read",
        "",
    ),
    TAR_LINK: ("link in a tar", "links in a tar", ""),
    NO_ENTRY_IMAGE: ("entry without an image", "entries without an image", ""),
    NOT_NAMED: ("image that no entry names", "images that no entry names", ""),
    ROW_WITHOUT: ("row without an image", "rows without an image", ""),
    NO_IMAGE: ("that is no known image", "that are no known images", ""),
    PAGE: ("further page or frame", "further pages or frames", "none: the first is used"),
    OVER_PAGES: ("further page of a document", "further pages of documents", "the option pages"),
    OVER_LIMIT: ("over the limit", "over the limit", "limit"),
}


def suffix_kind(suffix: str) -> str:
    """The kind of a file that is left out for its suffix. Names are untrusted: an odd suffix is not named."""
    plain = len(suffix) <= _LONGEST and suffix[1:].isascii() and suffix[1:].isalnum()
    return SUFFIX + (_NO_SUFFIX if not suffix else suffix if plain else _OTHER_SUFFIXES)


def folded(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts in order of kind, rare suffixes together, so that a source with a million suffixes has few kinds."""
    suffixes = sorted((kind for kind in counts if kind.startswith(SUFFIX)), key=lambda kind: (-counts[kind], kind))
    kept = Counter({kind: number for kind, number in counts.items() if number})
    for kind in suffixes[_SUFFIXES:]:
        kept[SUFFIX + _OTHER_SUFFIXES] += kept.pop(kind, 0)
    return dict(sorted(kept.items()))


def listed(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts that a listing alone gives, without reading a file."""
    return {kind: number for kind, number in counts.items() if kind not in _BY_READING}


def unusual(suffixes: Mapping[str, int]) -> str:
    """One line on images that were found beside those of the usual suffixes; "" for none. Kinds are of suffixes."""
    if not suffixes:
        return ""
    return f"with another suffix, by content: {sum(suffixes.values()):,} images ({_by_suffix(suffixes)})"


def _by_suffix(counts: Mapping[str, int]) -> str:
    named = sorted((-number, kind.removeprefix(SUFFIX)) for kind, number in counts.items() if kind.startswith(SUFFIX))
    return ", ".join(f"{name} {-number:,}" for number, name in named)


def told(counts: Mapping[str, int] | None) -> str:
    """One line: what was left out, and in brackets the setting that would include it; "" for nothing."""
    if not counts:
        return ""
    parts = []
    if by_suffix := sum(number for kind, number in counts.items() if kind.startswith(SUFFIX)):
        parts.append(f"{by_suffix:,} by suffix ({_by_suffix(counts)}; see `suffixes`)")
    for kind, (one, several, setting) in _WORDS.items():
        if number := counts.get(kind, 0):
            parts.append(f"{number:,} {one if number == 1 else several}" + (f" ({setting})" if setting else ""))
    return "left out: " + ", ".join(parts) if parts else ""
