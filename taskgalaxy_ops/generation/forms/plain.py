"""A question and its short answer."""

from __future__ import annotations

from taskgalaxy_ops.generation.forms import QuestionForm
from taskgalaxy_ops.generation.forms.verification import by_answer

PLAIN = QuestionForm(again=True, verify=by_answer)
