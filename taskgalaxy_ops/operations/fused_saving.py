"""What a request for verdicts and questions saves, by the tokens of requests that were asked in either way.

The two ways differ in the prompt alone. Apart, an image is shown twice where a task type fits, and each time with one
instruction; together once, with both. The image's tokens are in what replies state; the texts are known, and counted at
four characters a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.models.request import RequestItem, RequestTemplate

_CHARACTERS_A_TOKEN = 4  # OpenAI's rule of thumb for English text

Usage = Mapping[str, float]  # prompt_tokens and completion_tokens


@dataclass(frozen=True, slots=True)
class Parted:
    """A reply to both questions as two that had been asked apart would have stated their tokens."""

    filter: Usage
    write: Usage
    saved: float  # prompt tokens


def longer(asked: RequestTemplate, units: Sequence[RequestItem]) -> float:
    """The tokens by which a request that asks for questions, too, is longer than one for the verdicts alone."""
    return _tokens(asked, units) - _tokens(asked.along(""), units)


def parted(
    usage: Usage, asked: RequestTemplate, units: Sequence[RequestItem], written: Mapping[str, Mapping[str, Any]]
) -> Parted:
    """The reply to ``units``, asked by a template that asks along. written: the values of its answers, by follow-up."""
    if asked.follow_up is None:
        return Parted(usage, {}, 0.0)
    prompt, completion, more = usage["prompt_tokens"], usage["completion_tokens"], longer(asked, units)
    fitting = [unit for unit in units if unit.follow_up in written]
    if not fitting:
        return Parted({"prompt_tokens": prompt - more, "completion_tokens": completion}, {}, -more)
    apart = prompt - _tokens(asked, units) + _tokens(asked.follow_up.template, fitting)
    said = min(completion, _said(written.values()))
    return Parted(
        {"prompt_tokens": prompt - more, "completion_tokens": completion - said},
        {"prompt_tokens": apart, "completion_tokens": said},
        apart - more,
    )


def _tokens(template: RequestTemplate, units: Sequence[RequestItem]) -> float:
    return len(template.text(units)) / _CHARACTERS_A_TOKEN


def _said(values: Iterable[Mapping[str, Any]]) -> float:
    return sum(len(json.dumps(value, ensure_ascii=False)) for value in values) / _CHARACTERS_A_TOKEN
