"""A question about two to four images at once, which no one of them answers alone.

The request shows the images in the order of their group (generation/groups.py), and the question calls them by number.
"""

from __future__ import annotations

from taskgalaxy_ops.generation.forms import QuestionForm
from taskgalaxy_ops.generation.forms.verification import by_answer

SEVERAL_IMAGES = QuestionForm(
    reply={"question": str, "answer": str},
    several=True,
    verify=by_answer,
    suits=("!image description", "!image quality & photography"),
    version="1",
)
