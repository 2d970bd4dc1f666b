"""The simulated teacher: what it asks is true of the image, and what it cannot answer it refuses."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from taskgalaxy_ops.simulator import teacher, templates
from taskgalaxy_ops.simulator.perception import Scene, colour_name
from taskgalaxy_ops.simulator.skills import SKILLS, Asked, Found, NoFit
from taskgalaxy_ops.taxonomy import load_seeds

SHAPE = "shapes & patterns~shape recognition~"
RECEIPT = "documents~receipts & invoices~"
BARS = "charts & tables~bar charts~"
TABLE = "charts & tables~tables~"


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def sent(image: Image.Image) -> Image.Image:
    """As the server receives it: a decoded JPEG."""
    raw = io.BytesIO()
    image.save(raw, "JPEG", quality=90, subsampling=0)
    return Image.open(io.BytesIO(raw.getvalue())).convert("RGB")


@pytest.fixture(scope="module")
def receipt() -> Image.Image:
    image = Image.new("RGB", (520, 560), "white")
    draw = ImageDraw.Draw(image)
    draw.text((260, 40), "Harbor Bakery", "black", font(34), "ma")
    draw.text((260, 95), "2024-03-17", "black", font(20), "ma")
    lines = [("Rye bread", "3.40"), ("Green tea", "2.15"), ("Honey jar", "6.25"), ("TOTAL", "11.80"), ("Cash", "12.00")]
    for number, (name, amount) in enumerate(lines):
        draw.text((60, 160 + 50 * number), name, "black", font(22))
        draw.text((460, 160 + 50 * number), amount, "black", font(22), "ra")
    draw.text((260, 460), "Thank you!", "black", font(20), "ma")
    return sent(image)


@pytest.fixture(scope="module")
def table() -> Image.Image:
    image = Image.new("RGB", (700, 420), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 30), "Fruit in stock", "black", font(34))
    rows = [("Fruit", "Boxes", "Crates"), ("Plums", "42", "17"), ("Melons", "25", "64"), ("Grapes", "31", "22"),
            ("Apples", "58", "49")]  # fmt: skip
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            draw.text((60 + 220 * x, 110 + 55 * y), cell, "black", font(24))
    return sent(image)


@pytest.fixture(scope="module")
def chart() -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((8, 5), 100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar(["Bread", "Cheese", "Honey", "Salad"], [30, 80, 55, 12], color="tab:blue", width=0.6)
    axes.set_title("Breakfast sales in May", fontsize=18)
    axes.tick_params(labelsize=13)
    axes.set_ylim(0, 100)
    canvas.draw()
    return sent(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))


def shape(kind: str, colour: str) -> Image.Image:
    image = Image.new("RGB", (64, 64), "#f0f4fb")
    draw = ImageDraw.Draw(image)
    match kind:
        case "circle":
            draw.ellipse((6, 6, 22, 22), colour)
        case "rectangle":
            draw.rectangle((5, 8, 23, 20), colour)
        case _:
            draw.polygon([(14, 4), (4, 22), (24, 22)], colour)
    return sent(image)


def written(image: Image.Image, path: str, *seed: object) -> teacher.Written:
    result = teacher.write(image, path, seed)
    assert result is not None, teacher.fits(image, path)
    return result


def all_asked(image: Image.Image, path: str) -> dict[str, Asked]:
    found = SKILLS[path](Scene(image))
    assert isinstance(found, Found)
    return {next(iter(asked.params.values()), ""): asked for asked in found.asked}


def test_templates_are_for_seed_types_and_each_has_a_skill() -> None:
    paths = {node.path for node in load_seeds()}
    known = templates.load()
    assert set(known) <= paths
    assert set(known) == set(SKILLS)
    assert len(known) >= 90


def test_no_template_text_serves_more_than_three_task_types() -> None:
    counts = Counter(text for template in templates.load().values() for text in template.texts)
    assert max(counts.values()) <= 3


def test_parameters_come_back_from_a_filled_question() -> None:
    for template in templates.load().values():
        params = {name: f"the {name}, 3 + 4?" for name in template.meanings}
        for index in range(len(template.texts)):
            question = template.fill(index, **params)
            recovered = template.params(question)
            assert recovered is not None
            assert recovered.items() <= params.items()
        assert template.params("What is the meaning of all this?") is None


@pytest.mark.parametrize("colour", ["red", "blue", "black", "teal", "brown", "yellow", "gray"])
@pytest.mark.parametrize(("kind", "corners"), [("circle", "0"), ("rectangle", "4"), ("triangle", "3")])
def test_a_shape_is_named_with_its_colour_place_and_corners(kind: str, corners: str, colour: str) -> None:
    image = shape(kind, colour)
    assert written(image, SHAPE + "shape naming").answer == kind
    assert written(image, SHAPE + "shape colour identification").answer == colour.replace("gray", "grey")
    assert written(image, SHAPE + "shape position").answer == "upper left"
    assert written(image, SHAPE + "corner counting").answer == corners
    presence = all_asked(image, SHAPE + "shape presence check")
    assert {name: asked.answer for name, asked in presence.items()} == {
        name: "Yes" if name == kind else "No" for name in ("circle", "rectangle", "triangle")
    }


def test_shapes_of_easy_vqa_agree_with_its_own_answers() -> None:
    import easy_vqa

    folder = Path(easy_vqa.__file__).parent / "data" / "test"
    questions = json.loads((folder / "questions.json").read_text())
    truth = {number: answer for text, answer, number in questions if text.startswith("what shape")}
    colours = {number: answer for text, answer, number in questions if text.startswith("what color")}
    right = total = 0
    for number in list(truth)[:60]:
        image = sent(Image.open(folder / "images" / f"{number}.png").convert("RGB"))
        asked = teacher.write(image, SHAPE + "shape naming", (number,))
        if asked is not None:
            total += 1
            right += asked.answer == truth[number]
        coloured = teacher.write(image, SHAPE + "shape colour identification", (number,))
        if coloured is not None and number in colours:
            assert coloured.answer == colours[number].replace("gray", "grey")
    assert total >= 45
    assert right == total


def test_a_receipt_gives_total_items_date_and_shop(receipt: Image.Image) -> None:
    assert written(receipt, RECEIPT + "receipt total reading").answer == "11.80"
    assert written(receipt, RECEIPT + "receipt item counting").answer == "3"
    assert written(receipt, RECEIPT + "receipt date reading").answer == "2024-03-17"
    assert written(receipt, RECEIPT + "shop of receipt identification").answer == "Harbor Bakery"
    prices = all_asked(receipt, RECEIPT + "receipt item price lookup")
    assert {name: asked.answer for name, asked in prices.items()} == {
        "Rye bread": "3.40", "Green tea": "2.15", "Honey jar": "6.25",
    }  # fmt: skip
    change = written(receipt, "mathematics~arithmetic on images~change calculation", 1)
    assert (change.question, change.answer) in {
        ("How much change is due if the total is paid with 20.00?", "8.20"),
    }


def test_a_table_gives_cells_counts_and_sums(table: Image.Image) -> None:
    assert written(table, TABLE + "table row counting").answer == "4"
    assert written(table, TABLE + "table column counting").answer == "3"
    assert written(table, TABLE + "table header reading").answer == "Fruit; Boxes; Crates"
    sums = all_asked(table, TABLE + "table column sum")
    assert {name: asked.answer for name, asked in sums.items()} == {"Boxes": "156", "Crates": "152"}
    highest = all_asked(table, TABLE + "table maximum finding")
    assert {name: asked.answer for name, asked in highest.items()} == {"Boxes": "Apples", "Crates": "Melons"}


def test_a_bar_chart_gives_bars_and_their_values(chart: Image.Image) -> None:
    assert written(chart, BARS + "bar counting").answer == "4"
    assert written(chart, BARS + "tallest bar identification").answer == "Cheese"
    assert written(chart, BARS + "shortest bar identification").answer == "Salad"
    assert written(chart, BARS + "bar colour identification").answer == "blue"
    values = all_asked(chart, BARS + "bar value estimation")
    for name, value in {"Bread": 30, "Cheese": 80, "Honey": 55, "Salad": 12}.items():
        assert float(values[name].answer) == pytest.approx(value, abs=5)
    assert written(chart, "charts & tables~chart text~axis range reading").answer == "0 to 100"


def test_what_does_not_fit_is_refused_with_a_short_reason(receipt: Image.Image, chart: Image.Image) -> None:
    refused = [
        (receipt, BARS + "bar counting"),
        (chart, RECEIPT + "receipt total reading"),
        (shape("circle", "red"), "ocr~printed text ocr~title reading"),
        (receipt, "object recognition~animals~dog breed identification"),
        (receipt, "people & actions~facial expression recognition"),
    ]
    for image, path in refused:
        right, reason = teacher.fits(image, path)
        assert not right
        assert 2 <= len(reason.split()) <= 15
        assert teacher.write(image, path, (1,)) is None


def test_what_fits_can_be_written_and_the_wrong_answer_differs(
    receipt: Image.Image, table: Image.Image, chart: Image.Image
) -> None:
    known = templates.load()
    for image in (receipt, table, chart, shape("triangle", "blue")):
        for path in SKILLS:
            right, reason = teacher.fits(image, path)
            assert len(reason.split()) <= 15
            if not right:
                continue
            result = written(image, path, "seed", path)
            assert result.wrong.casefold() != result.answer.casefold()
            assert 2 <= result.reasoning.count(". ") + 1 <= 5 or result.reasoning.count(".") >= 2
            assert known[path].params(result.question) is not None
            if known[path].choices:
                assert {result.answer, result.wrong} <= set(known[path].choices)


def test_the_same_seed_gives_the_same_question(table: Image.Image) -> None:
    path = TABLE + "table cell lookup"
    again = Image.fromarray(np.asarray(table))
    assert written(table, path, 7) == written(again, path, 7)
    assert len({written(table, path, seed).question for seed in range(12)}) > 3


def test_a_colour_between_two_names_has_none() -> None:
    assert colour_name((255, 0, 0)) == "red"
    assert colour_name((31, 119, 180)) == "blue"
    assert colour_name((210, 80, 40)) is None
    assert colour_name((245, 235, 220)) is None


def test_a_skill_says_why_it_does_not_fit() -> None:
    with pytest.raises(NoFit, match="no text"):
        SKILLS["ocr~printed text ocr~text line counting"](Scene(Image.new("RGB", (300, 300), "white")))


def test_a_question_of_its_own_is_answered_again_and_no_other_is(receipt: Image.Image) -> None:
    path = next(each for each in sorted(SKILLS) if each.startswith(RECEIPT) and teacher.write(receipt, each, (0,)))
    for seed in range(4):
        written = teacher.write(receipt, path, (seed,))
        assert written is not None
        found = teacher.answer(receipt, path, written.question)
        assert found is not None and found.answer == written.answer and written.wrong in found.wrong
    assert teacher.answer(receipt, path, "Who is the president?") is None
    assert teacher.answer(receipt, "no~such type", written.question) is None
