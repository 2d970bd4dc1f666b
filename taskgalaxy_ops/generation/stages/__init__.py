"""The stages, with the tables that each writes and its input: planning, explaining and costs read it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.records import Pair, Reject, Relevant, Verdict, Vote

ASKING_STAGES = ("filter", "write", "vote")
TABLES: Mapping[str, Mapping[str, type[Any]]] = {
    "filter": {"relevant": Relevant, "rejects": Reject},
    "write": {"pairs": Pair, "rejects": Reject},
    "vote": {"votes": Vote, "verdicts": Verdict, "samples": Pair, "rejects": Reject},
}


STAGES = ("embed", "match", "filter", "write", "vote")
# The stages' input from the stage before, as made_of names it.
INPUTS = {"embed": "images", "match": "embeddings", "filter": "matches", "write": "relevant matches", "vote": "pairs"}
