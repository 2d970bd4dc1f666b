"""Questions with yes or no: each says what it claims, and reads as a question of its own."""

from __future__ import annotations

import pytest

from taskgalaxy_ops.simulator import claims, templates

UNASKED = {"image description~short caption writing", "logical reasoning~inference~false premise detection"}


def test_every_question_is_read_as_what_it_claims():
    assert {path for path in templates.load() if claims.of(path) is None} == UNASKED
    for path, template in templates.load().items():
        if (known := claims.of(path)) is None:
            continue
        params = {name: f"({name})" for name in template.meanings}
        for answer in [known.value] if known.value else template.choices or ("17", "1", "0", "red", "centre"):
            for index in range(len(known.texts)):
                question = known.ask(index, params, answer)
                assert claims.read(path, question) == (params, answer), question
                assert question.endswith("?") and "the answer" not in question


SHAPE = "shapes & patterns~shape recognition~"


@pytest.mark.parametrize(
    ("path", "answer", "question"),
    [
        (f"{SHAPE}shape counting", "3", "Are there 3 geometric shapes in the image?"),
        (f"{SHAPE}shape counting", "1", "Is there just one geometric shape in the image?"),
        (f"{SHAPE}corner counting", "0", "Does the shape have no corners?"),
        (f"{SHAPE}shape position", "top", "Does the circle lie at the top of the image?"),
        ("object recognition~animals~animal kind identification", "ox", "Is the animal that is shown an ox?"),
    ],
)
def test_an_answer_is_named_as_one_says_it(path, answer, question):
    known, params = claims.of(path), {"shape": "circle"} if "position" in path else {}
    assert known is not None
    assert known.ask(0, params, answer) == question
    assert known.read(question) == (params, answer)
    assert claims.read(path, "Is there a dog?") is None
