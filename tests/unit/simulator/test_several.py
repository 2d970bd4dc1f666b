"""Questions about several images: how they read, what answers them, and that judges look at each image themselves."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from taskgalaxy_ops.simulator import several, templates
from taskgalaxy_ops.simulator.answers import answer, open_images
from taskgalaxy_ops.simulator.config import JudgeErrors, SimulatorConfig
from taskgalaxy_ops.simulator.judges import many
from taskgalaxy_ops.simulator.judges.finding import Found, UnsureError
from taskgalaxy_ops.simulator.several import About
from taskgalaxy_ops.simulator.wire import WrongRequestError, parse

SHAPE = "shapes & patterns~shape recognition~"
NO_ERRORS = JudgeErrors(false_accept=0, false_reject=0)


def config(seed: int = 0, wrong_share: float = 0) -> SimulatorConfig:
    judges = dict.fromkeys("abc", NO_ERRORS)
    return SimulatorConfig(seed=seed, wrong_share=wrong_share, judges=judges, guess_accept=0)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def drawn(colour: str, *boxes: tuple[int, int, int, int], kind: str = "ellipse") -> bytes:
    image = Image.new("RGB", (96, 96), "white")
    for box in boxes:
        getattr(ImageDraw.Draw(image), kind)(box, fill=colour)
    return png(image)


def printed(*lines: str) -> bytes:
    image = Image.new("RGB", (420, 60 + 50 * len(lines)), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 30 + 50 * row), line, "black", ImageFont.load_default(size=26))
    return png(image)


def ask(block: Mapping[str, Any], images: Sequence[bytes], model: str, settings: SimulatorConfig) -> list[Any]:
    """The entries of the simulated models' reply."""
    parts: list[Any] = [{"type": "text", "text": f"Do this.\n\n```json\n{json.dumps(block)}\n```"}]
    for raw in images:
        url = f"data:image/png;base64,{base64.b64encode(raw).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    asked = parse(json.dumps({"model": model, "messages": [{"role": "user", "content": parts}]}).encode())
    return answer(settings, asked, open_images(asked)).entries


def write(path: str, images: Sequence[bytes], settings: SimulatorConfig) -> tuple[str, str]:
    block = {"request": "write", "variant": "several_images", "images": len(images)}
    (entry,) = ask({**block, "task_types": [{"index": 1, "task_type": path}]}, images, "sim-teacher", settings)
    return entry["question"], entry["answer"]


def votes(path: str, question: str, said: str, images: Sequence[bytes]) -> list[int]:
    pair = {"index": 1, "task_type": path, "question": question, "answer": said}
    block = {"request": "vote", "show_answer": True, "images": len(images), "pairs": [pair]}
    return [ask(block, images, f"sim-judge-{judge}", config())[0]["vote"] for judge in "abc"]


ONE, TWO = drawn("red", (10, 10, 40, 40)), drawn("blue", (5, 5, 35, 35), (50, 50, 90, 90), kind="rectangle")
THREE = drawn("red", (5, 5, 30, 30), (50, 5, 80, 35), (10, 50, 50, 90))
SHAPES = (ONE, TWO, THREE)


def test_every_text_is_read_as_what_it_asks():
    for path, template in templates.load().items():
        params = {name: f"some {name}" for name in template.meanings}
        for index in range(len(template.texts)):
            by_number = several.ask_alone(template, index, params, 2)
            by_mark = several.ask_alone(template, index, params, 2, "Open daily")
            bare = template.fill(index, **params)
            assert several.read(path, by_number, 3) == (2, "", bare), by_number
            assert several.read(path, by_mark, 3) == (None, "Open daily", bare), by_mark
            assert several.read(path, by_number, 4) and not several.read(path, bare, 3)
        for comparison in several.of(path):
            compared = templates.load()[comparison.path]
            value = (comparison.value or (compared.choices or ("blue",))[0]) * comparison.by_value
            named = {name for text in comparison.texts for name in templates.fields(text)} & params.keys()
            about = About((3, 1) if comparison.of_two else (1, 2, 3), value, {name: params[name] for name in named})
            for index in range(len(comparison.texts)):
                question = comparison.ask(index, about, 3)
                read = several.read(path, question, 3)
                assert isinstance(read, tuple) and read[1] == about, question
                assert comparison.relation == getattr(read[0], "relation", None) or comparison.alone, question


@pytest.mark.parametrize(
    ("relation", "values", "right"),
    [
        ("more", [2, 1], "Image 1"),
        ("more", [2, 2], None),
        ("least", [3, 1, 2], "Image 2"),
        ("least", [1, 1, 2], None),
        ("both", [0.1, 0.2], "0.3"),
        ("difference", [1, 2], None),
        ("difference", [4, 1.5], "2.5"),
        ("same", ["red", "red"], "Yes"),
        ("same", ["red", "blue"], "No"),
        ("order", [2, 3, 1], "Image 3, image 1, image 2"),
        ("order", [2, 2, 1], None),
        ("which", ["red", "blue", "blue"], "Image 1"),
        ("which", ["red", "red", "blue"], None),
        ("number", ["red", "red", "blue"], "2"),
        ("odd", ["blue", "red", "blue"], "Image 2"),
        ("odd", ["blue", "red", "green"], None),
        ("odd", ["blue", "red", "blue", "red"], None),
    ],
)
def test_a_question_with_more_than_one_right_answer_has_none(relation, values, right):
    assert several.answer(relation, values, About(tuple(range(1, len(values) + 1)), "red", {})) == right


def test_the_teacher_counts_and_compares_what_each_image_shows():
    written = dict(write(f"{SHAPE}shape counting", SHAPES, config(seed)) for seed in range(40))
    assert len(written) > 12, "wordings and relations vary"
    truth = {
        "How many geometric shapes do the three images show in total?": "6",
        "How many geometric shapes are there in image 1 and image 3 together?": "4",
        "How many more geometric shapes does image 3 show than image 2?": "1",
        "Are there more geometric shapes in image 1 or in image 2?": "Image 2",
        "Which of the three images shows the fewest geometric shapes?": "Image 1",
        "Do image 1 and image 2 show the same number of geometric shapes?": "No",
    }
    for question, right in truth.items():
        assert written.get(question, right) == right
        assert votes(f"{SHAPE}shape counting", question, right, SHAPES) == [1, 1, 1], question
    assert len(written.keys() & truth.keys()) > 1
    (order,) = {said for question, said in written.items() if question.startswith("Put the images in order")}
    assert order == "Image 1, image 2, image 3"


@pytest.mark.parametrize(
    "path", [f"{SHAPE}shape counting", f"{SHAPE}shape presence check", "colour~main colours~colour presence check"]
)
def test_judges_find_right_what_is_and_wrong_what_is_planted(path):
    for seed in range(12):
        question, right = write(path, SHAPES, config(seed))
        asked, wrong = write(path, SHAPES, config(seed, wrong_share=1))
        assert (question, right) != ("", "") and asked == question and wrong != right
        assert votes(path, question, right, SHAPES) == [1, 1, 1], (question, right)
        assert votes(path, question, wrong, SHAPES) == [0, 0, 0], (question, wrong)


def test_the_order_of_the_images_matters_and_a_tie_is_no_question():
    path, question = f"{SHAPE}shape counting", "Which of the three images shows the most geometric shapes?"
    assert votes(path, question, "Image 3", SHAPES) == [1, 1, 1]
    assert votes(path, question, "Image 3", SHAPES[::-1]) == [0, 0, 0]
    assert votes(path, question, "Image 3", (TWO, ONE, TWO)) == [0, 0, 0]
    assert votes(path, question, "Image 2", SHAPES[:2]) == [0, 0, 0], "there are no three images"


def test_texts_tell_images_apart():
    images = [printed("Bakery", "Main Street", "Fresh bread"), printed("Library", "Tower Lane", "Closed on Monday")]
    path = "ocr~printed text ocr~last line reading"
    written = {write(path, images, config(seed)) for seed in range(12)}
    for question, said in written:
        assert votes(path, question, said, images) == [1, 1, 1], (question, said)
        assert votes(path, question, said, images[::-1]) == ([1] * 3 if "that says" in question else [0] * 3)
    assert any("the image that says" in question for question, _ in written)
    assert any(said == "Image 2" for _, said in written)
    mark = "In the image that says “Town Hall”, what does the bottom line of text say?"
    assert votes(path, mark, "Closed on Monday", images) == [0, 0, 0]


def test_what_nothing_fits_is_declined_and_other_forms_see_one_image():
    assert write("logical reasoning~inference~visual claim verification", SHAPES, config()) == ("", "")
    block = {"request": "write", "variant": "plain", "images": 3, "task_types": [{"index": 1, "task_type": SHAPE}]}
    assert ask(block, SHAPES, "sim-teacher", config())[0]["question"] == ""


@pytest.mark.parametrize(
    ("images", "sent", "told"),
    [
        (3, 2, "needs 3 image(s) beside its text, not 2"),
        (None, 2, "needs 1 image(s)"),
        (5, 5, "images"),
        (1, 1, "images"),
    ],
)
def test_as_many_images_are_sent_as_the_request_says(images, sent, told):
    block = {"request": "write", "variant": "several_images", "task_types": [{"index": 1, "task_type": "a"}]}
    with pytest.raises(WrongRequestError) as refused:
        ask(block | ({"images": images} if images else {}), [ONE] * sent, "sim-teacher", config())
    assert told in str(refused.value)


def test_a_judge_that_cannot_tell_of_one_image_finds_which_has_it_but_not_how_many(monkeypatch):
    def rule(seen, _):
        if seen.width == 50:
            raise UnsureError("too small")
        return Found("a shape", lambda said: said == "circle" and seen.width == 40)

    monkeypatch.setattr(many, "rules", lambda: {"shape naming": rule})
    images = [Image.new("RGB", (width, 40)) for width in (40, 50, 60)]

    def finding(question: str, said: str) -> bool | None:
        return many.check_several("a", images, ["x", "y", "z"], f"{SHAPE}shape naming", question, said).right

    assert finding("Which of the three images shows a circle?", "Image 1") is True
    assert finding("Which of the three images shows a circle?", "Image 3") is None
    assert finding("How many of the three images show a circle?", "1") is None
    assert finding("Do image 1 and image 2 show the same geometric shape?", "No") is None
