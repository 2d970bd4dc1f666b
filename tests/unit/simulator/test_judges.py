"""The simulated judges: what they see of drawn images whose truth is known, and what they say of answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from taskgalaxy_ops.simulator import judges, templates
from taskgalaxy_ops.simulator.judges import (
    checking,
    figures,
    layout,
    palettes,
    plots,
    readers,
    rules_numbers,
    views,
    words,
)
from taskgalaxy_ops.simulator.judges.finding import SenselessError
from taskgalaxy_ops.simulator.memory import Memory

JUDGES = judges.JUDGES


@pytest.fixture(params=JUDGES)
def judge(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def question(path: str, **params: str) -> str:
    return templates.load()[path].fill(0, **params)


def shape_image(shape: str, colour: str, box: tuple[int, int, int, int] = (20, 30, 44, 50)) -> Image.Image:
    image = Image.new("RGB", (64, 64), (236, 244, 240))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    if shape == "triangle":
        draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=colour)
    elif shape == "circle":
        draw.ellipse((left, top, left + bottom - top, bottom), fill=colour)
    else:
        draw.rectangle(box, fill=colour)
    return image


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@pytest.fixture(scope="module")
def receipt() -> Image.Image:
    image = Image.new("RGB", (480, 520), "white")
    draw = ImageDraw.Draw(image)
    draw.text((240, 40), "Linden Street Bakery", "black", font(30), anchor="mm")
    lines = [("Rye bread", "3.40"), ("Apple pie", "12.75"), ("Green tea", "2.10")]
    for number, (name, price) in enumerate(lines):
        draw.text((40, 130 + 50 * number), name, "black", font(24), anchor="lm")
        draw.text((440, 130 + 50 * number), price, "black", font(24), anchor="rm")
    draw.text((40, 310), "TOTAL", "black", font(28), anchor="lm")
    draw.text((440, 310), "18.25", "black", font(28), anchor="rm")
    draw.text((40, 380), "Date: 2024-03-17", "black", font(24), anchor="lm")
    draw.text((40, 440), "Receipt no. 4471", "black", font(24), anchor="lm")
    return image


@pytest.fixture(scope="module")
def bar_chart() -> Image.Image:
    image = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(image)
    draw.text((320, 30), "Visitors by town", "black", font(28), anchor="mm")
    for number, (name, height) in enumerate([("Marlow", 120), ("Calder", 290), ("Elm", 60), ("Ashford", 200)]):
        left = 120 + 125 * number
        draw.rectangle((left, 400 - height, left + 80, 400), fill=(31, 95, 180))
        draw.text((left + 40, 430), name, "black", font(22), anchor="mm")
    for value in range(0, 31, 10):
        draw.text((80, 400 - 10 * value), str(value), "black", font(22), anchor="rm")
    return image


# --- comparing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [("1,250.50", [1250.5]), ("12,5 kg", [12.5]), ("from 3 to 17", [3, 17]), ("-4", [-4]), ("EUR 24.50", [24.5])],
)
def test_numbers_are_read_as_printed(text: str, found: list[float]) -> None:
    assert words.numbers(text) == found


def test_slips_of_reading_are_forgiven_but_no_digit_is() -> None:
    assert words.same_text("Region-based segmentation", "Region-basedsegmentatlon")
    assert words.same_text("Room 100", "Room 1OO")
    assert not words.same_text("Room 101", "Room 107")
    assert not words.same_text("Linden Street", "Lantern Street")


def test_a_line_is_found_within_a_longer_one() -> None:
    assert words.within("Harborview", "4 Bridge Road, Harborvlew")
    assert not words.within("12 Bridge Road", "4 Bridge Road, Harborview")


def test_lists_are_compared_entry_by_entry() -> None:
    assert words.same_items(["Pear", "Plum"], ["Plum", "Pear"]) == ([], [])
    assert words.same_items(["Pear", "Fig"], ["Pear", "Plum"]) == (["Fig"], ["Plum"])


def test_a_printed_sum_is_reckoned_and_nothing_else_is_run() -> None:
    assert rules_numbers.value_of("12 + 3 * 4") == 24
    with pytest.raises(SenselessError):
        rules_numbers.value_of("__import__('os')")
    with pytest.raises(SenselessError):
        rules_numbers.value_of("2 / 0")


# --- seeing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["red", "green", "blue", "yellow", "grey", "teal", "black", "white", "orange"])
def test_every_judge_names_plain_colours_alike(judge: str, name: str) -> None:
    pixel = np.asarray(Image.new("RGB", (1, 1), name))[0, 0]
    assert palettes.name_of(judge, tuple(float(v) for v in pixel)) == name


def test_judges_name_a_colour_on_the_border_differently() -> None:
    assert len({palettes.name_of(judge, (205, 92, 75)) for judge in JUDGES}) > 1


def test_shares_add_up_to_one(judge: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), np.uint8))
    assert sum(palettes.shares(judge, noise).values()) == pytest.approx(1)


@pytest.mark.parametrize("shape", ["circle", "rectangle", "triangle"])
@pytest.mark.parametrize("box", [(20, 30, 44, 50), (3, 3, 15, 14), (4, 8, 60, 60)])
def test_shapes_are_told_apart(judge: str, shape: str, box: tuple[int, int, int, int]) -> None:
    found = figures.figures(views.View(judge, shape_image(shape, "blue", box)))
    assert [figure.shape for figure in found] == [shape]


def test_bars_and_their_scale_are_found(judge: str, bar_chart: Image.Image) -> None:
    seen = views.view(judge, bar_chart)
    found = plots.bars(seen)
    assert [plots.label(seen, bar) for bar in found] == ["Marlow", "Calder", "Elm", "Ashford"]
    scale = plots.scale(seen)
    assert scale is not None
    assert scale.value(found[1].top) == pytest.approx(29, abs=0.6)


def test_slices_of_a_pie_are_found(judge: str) -> None:
    image = Image.new("RGB", (400, 400), "white")
    draw = ImageDraw.Draw(image)
    for start, end, colour in ((0, 180, "red"), (180, 290, "green"), (290, 360, "blue")):
        draw.pieslice((60, 60, 340, 340), start, end, fill=colour)
    found = plots.slices(views.View(judge, image))
    assert sorted(round(part.share, 1) for part in found) == [0.2, 0.3, 0.5]


def test_text_is_grouped_into_lines(judge: str, receipt: Image.Image) -> None:
    lines = [words.squash(line.text) for line in views.view(judge, receipt).lines]
    assert lines[0] == "lindenstreetbakery"
    assert "applepie1275" in lines


def test_prices_belong_to_the_names_before_them(judge: str, receipt: Image.Image) -> None:
    assert [entry.amount for entry in layout.priced(views.view(judge, receipt))] == [3.4, 12.75, 2.1, 18.25]


def test_a_small_image_is_not_read(judge: str) -> None:
    assert readers.read(judge, Image.new("RGB", (64, 64))) == []


def test_an_image_is_looked_at_once(judge: str, receipt: Image.Image) -> None:
    assert views.view(judge, receipt) is views.view(judge, receipt.copy())


def test_no_more_views_are_kept_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_views", Memory(3))
    for shade in range(6):
        views.view("a", Image.new("L", (8, 8), shade))
    assert len(views._views) == 3


def test_an_image_is_read_once_by_each_judge_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch, receipt: Image.Image
) -> None:
    monkeypatch.setattr(views, "_views", Memory(1))  # a view is forgotten as soon as another is asked for
    monkeypatch.setattr(views, "_readings", Memory(10))
    read: list[str] = []
    reader = readers.read

    def counting(judge: str, image: Image.Image) -> list[readers.Piece]:
        read.append(judge)
        return reader(judge, image)

    monkeypatch.setattr(readers, "read", counting)
    found = [[views.view(judge, receipt, "its file's hash").pieces for judge in JUDGES] for _ in range(2)]
    assert found[0] == found[1]
    assert read == list(JUDGES)
    assert len({tuple(pieces) for pieces in found[0]}) == len(JUDGES)


def test_threads_see_the_same(receipt: Image.Image) -> None:
    path = f"{RECEIPT}receipt total reading"

    def ask(number: int) -> judges.Finding:
        return judges.check(JUDGES[number % 3], receipt.copy(), path, question(path), "18.25", None)

    with ThreadPoolExecutor(6) as pool:
        assert {found.right for found in pool.map(ask, range(12))} == {True}


def test_another_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="'d'"):
        judges.check("d", Image.new("RGB", (8, 8)), "x", "?", None, None)


# --- judging -------------------------------------------------------------------------------------------------


def test_there_is_a_rule_for_every_task_type() -> None:
    leaves = {path.rsplit("~", 1)[-1] for path in templates.load()}
    assert leaves == set(checking.rules())


SHAPE = "shapes & patterns~shape recognition~"
RECEIPT = "documents~receipts & invoices~"
CHART = "charts & tables~bar charts~"


@pytest.mark.parametrize(
    ("path", "params", "right", "wrong"),
    [
        (f"{SHAPE}shape naming", {}, "triangle", "circle"),
        (f"{SHAPE}shape colour identification", {"shape": "triangle"}, "red", "yellow"),
        (f"{SHAPE}shape presence check", {"shape": "circle"}, "No", "Yes"),
        (f"{SHAPE}corner counting", {}, "3", "4"),
        (f"{SHAPE}shape position", {"shape": "triangle"}, "centre", "upper left"),
        ("colour~colour properties~greyscale or colour", {}, "in colour", "in shades of grey"),
        ("image quality & photography~composition~image orientation", {}, "square", "portrait"),
    ],
)
def test_answers_on_shapes(judge: str, path: str, params: dict[str, str], right: str, wrong: str) -> None:
    image = shape_image("triangle", "red")
    assert judges.check(judge, image, path, question(path, **params), right, None).right is True
    assert judges.check(judge, image, path, question(path, **params), wrong, None).right is False


@pytest.mark.parametrize(
    ("path", "params", "right", "wrong"),
    [
        (f"{RECEIPT}receipt total reading", {}, "18.25", "18.75"),
        (f"{RECEIPT}receipt item price lookup", {"item": "Apple pie"}, "12.75", "3.40"),
        (f"{RECEIPT}receipt item counting", {}, "3", "4"),
        (f"{RECEIPT}receipt date reading", {}, "2024-03-17", "2024-03-11"),
        (f"{RECEIPT}shop of receipt identification", {}, "Linden Street Bakery", "Lantern Street Bakery"),
        ("mathematics~arithmetic on images~sum of amounts", {}, "18.25", "20.35"),
        ("ocr~printed text ocr~first line reading", {}, "Linden Street Bakery", "Receipt no. 4471"),
        ("mathematics~arithmetic on images~price comparison", {"first": "Rye bread", "second": "Green tea"},
         "Green tea", "Rye bread"),
    ],
)  # fmt: skip
def test_answers_on_a_receipt(
    judge: str, receipt: Image.Image, path: str, params: dict[str, str], right: str, wrong: str
) -> None:
    assert judges.check(judge, receipt, path, question(path, **params), right, None).right is True
    assert judges.check(judge, receipt, path, question(path, **params), wrong, None).right is False


@pytest.mark.parametrize(
    ("path", "params", "right", "wrong"),
    [
        (f"{CHART}bar counting", {}, "4", "5"),
        (f"{CHART}tallest bar identification", {}, "Calder", "Ashford"),
        (f"{CHART}shortest bar identification", {}, "Elm", "Marlow"),
        (f"{CHART}bar colour identification", {}, "blue", "red"),
        (f"{CHART}bar value estimation", {"category": "Ashford"}, "20", "26"),
        (f"{CHART}bar height comparison", {"first": "Marlow", "second": "Elm"}, "Marlow", "Elm"),
        ("charts & tables~chart text~chart type classification", {}, "bar chart", "pie chart"),
    ],
)
def test_answers_on_a_bar_chart(
    judge: str, bar_chart: Image.Image, path: str, params: dict[str, str], right: str, wrong: str
) -> None:
    assert judges.check(judge, bar_chart, path, question(path, **params), right, None).right is True
    assert judges.check(judge, bar_chart, path, question(path, **params), wrong, None).right is False


def test_a_question_of_another_task_type_is_wrong(judge: str) -> None:
    found = judges.check(judge, shape_image("circle", "red"), f"{SHAPE}shape naming", "How are you?", "circle", None)
    assert found == judges.Finding(False, "the question is not of this task type")


def test_an_unknown_task_type_is_wrong(judge: str) -> None:
    assert judges.check(judge, shape_image("circle", "red"), "a~b", "How?", "so", None).right is False


@pytest.mark.parametrize("answer", ["", "purplish", "red and more", "7"])
def test_an_answer_of_another_form_is_wrong(judge: str, answer: str) -> None:
    path = f"{SHAPE}shape colour identification"
    image = shape_image("circle", "red")
    assert judges.check(judge, image, path, question(path, shape="circle"), answer, None).right is False


def test_a_question_about_what_is_not_there_is_wrong_with_and_without_answer(judge: str) -> None:
    path = f"{SHAPE}shape colour identification"
    image = shape_image("circle", "red")
    assert judges.check(judge, image, path, question(path, shape="triangle"), "red", None).right is False
    assert judges.check(judge, image, path, question(path, shape="triangle"), None, None).right is False


def test_without_an_answer_the_question_alone_is_judged(judge: str) -> None:
    path = f"{SHAPE}shape naming"
    assert judges.check(judge, shape_image("circle", "red"), path, question(path), None, None).right is True


def test_reasoning_must_lead_to_the_answer(judge: str) -> None:
    path = f"{SHAPE}shape naming"
    image = shape_image("circle", "red")
    led = judges.check(judge, image, path, question(path), "circle", "It has no corners. So it is a circle.")
    assert led.right is True
    astray = judges.check(judge, image, path, question(path), "circle", "It has three corners. So it is a triangle.")
    assert astray.right is False


def test_reasons_name_what_was_found_in_at_most_twenty_words(judge: str, receipt: Image.Image) -> None:
    path = f"{RECEIPT}receipt total reading"
    found = judges.check(judge, receipt, path, question(path), "19.20", None)
    assert "18.25" in found.reason
    assert "19.20" in found.reason
    assert len(found.reason.split()) <= 20
