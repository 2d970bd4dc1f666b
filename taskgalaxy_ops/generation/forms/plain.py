"""A question and its short answer."""

from __future__ import annotations

from taskgalaxy_ops.generation.forms import QuestionForm

PLAIN = QuestionForm(again=True)
