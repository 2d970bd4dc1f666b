"""A question, the reasoning that leads to its answer, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.generation.forms.verification import by_answer


def _texts(reply: Mapping[str, Any]) -> Texts:
    return Texts(reply["question"], reply["answer"], reply["reasoning"] or None)


CHAIN_OF_THOUGHT = QuestionForm(texts=_texts, reasons=True, again=True, verify=by_answer)
