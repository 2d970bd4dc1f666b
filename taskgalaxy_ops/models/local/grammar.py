"""Keeps what a model in this process writes to a JSON schema: at each step, only tokens that the schema allows.

llguidance computes which tokens these are. Where it is not installed, or cannot read the tokenizer or the schema, the
model is held by its prompt alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)

# No blanks between JSON's marks: a weak model would fill its room with them. Of the escapes, those of control
# characters that models do not mean: whoever begins "\frac", "\theta" or "\beta" has to write "\\frac".
_OPTIONS = {"whitespace_flexible": False, "json_allowed_escapes": '"\\nu'}


class Grammars:
    """The schemas that a tokenizer's tokens can be held to."""

    def __init__(self, tokenizer: Any, ends: Sequence[int], vocabulary: int) -> None:
        """ends: tokens that end a reply. vocabulary: tokens that the model gives scores for."""
        self._tokens: Any = None
        self._read: dict[str, Any] = {}  # matchers at their beginning, by schema; None: it cannot be enforced
        try:
            import llguidance
            from llguidance.hf import from_tokenizer

            self._matcher: Any = llguidance.LLMatcher
            self._tokens = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(ends))
        except ImportError:
            _log.warning("llguidance is not installed: a model in process is held to its schema by the prompt alone")
        except Exception as error:  # noqa: BLE001 - a tokenizer that the library does not know
            _log.warning("llguidance cannot read the tokenizer (%s): the prompt alone asks for the schema", error)

    def matcher(self, schema: Mapping[str, Any] | None) -> Any:
        """A matcher for one reply of this schema; None if nothing is enforced."""
        if schema is None or self._tokens is None:
            return None
        text = json.dumps(schema)
        if text not in self._read:
            self._read[text] = self._new(text)
        first = self._read[text]
        return first.deep_copy() if first else None

    def _new(self, schema: str) -> Any:
        try:
            matcher = self._matcher(
                self._tokens, self._matcher.grammar_from_json_schema(schema, overrides=_OPTIONS), log_level=0
            )
        except ValueError as error:
            why = str(error)
        else:
            if not matcher.is_error():
                return matcher
            why = matcher.get_error()
        _log.warning("llguidance cannot enforce a schema (%s): the prompt alone asks for it", why[:300])
        return None


class GrammarProcessor:
    """A logits processor of transformers: row by row, it takes the chance from tokens that a matcher does not allow."""

    def __init__(self, matchers: Sequence[Any]) -> None:
        """matchers: of the batch's rows; None for a row that may say anything."""
        self._matchers = list(matchers)
        self._begun = False

    def __call__(self, tokens: Any, scores: Any) -> Any:
        """The scores for the next token. tokens: (rows, length); scores: (rows, vocabulary)."""
        import torch

        allowed = np.ones(tuple(scores.shape), dtype=bool)
        last = tokens[:, -1].tolist()
        for row, matcher in enumerate(self._matchers):
            if matcher is None:
                continue
            if self._begun and not matcher.is_stopped():
                matcher.consume_token(last[row])
            if matcher.is_error():  # the library met a limit of its own: the rest is read as it comes
                self._matchers[row] = None
                continue
            # One bit a token, the lowest first. A reply that has ended allows the end alone.
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            allowed[row] = np.unpackbits(bits, bitorder="little", count=scores.shape[1])
        self._begun = True
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))
