"""Question forms with a reply of their own: how they are read, what is sent back; simulated models can do each."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from taskgalaxy_ops.generation.checks import broken, rules_of
from taskgalaxy_ops.generation.forms import FORMS, Texts, grounded, multiple_choice
from taskgalaxy_ops.generation.forms.long_description import QUESTIONS
from taskgalaxy_ops.generation.forms.multiple_choice import CLOSING
from taskgalaxy_ops.generation.forms.unanswerable import WORDINGS, declines
from taskgalaxy_ops.generation.stages.vote import vote_template, vote_unit
from taskgalaxy_ops.generation.stages.write import reader, write_template, write_units, written
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Pair, Reason, Relevant
from taskgalaxy_ops.settings import Model, WriteSettings
from taskgalaxy_ops.settings.checks import CheckSettings
from taskgalaxy_ops.simulator import options
from taskgalaxy_ops.simulator.answers import answer, open_images
from taskgalaxy_ops.simulator.config import JudgeErrors, SimulatorConfig
from taskgalaxy_ops.simulator.wire import parse

MODEL = Model(name="t", base_url="http://x/v1", model="sim-teacher")
CHOICE = write_template("Write.", MODEL, "multiple_choice")
(UNIT,) = write_units(CHOICE, [Relevant("i1", "a~b", "seen")])
SHAPE = "shapes & patterns~shape recognition~"
GOOD = {"question": "What colour is the car?", "answer": "Red", "wrong_1": "Blue", "wrong_2": "Green", "wrong_3": ""}


def outcome(**fields: str) -> Any:
    """The pair that a reply becomes, its reject, or what the teacher is told."""
    answers, fault = CHOICE.parse([UNIT], json.dumps({"pairs": [{"index": 1, **GOOD, **fields}]}))
    if UNIT.key not in answers:
        return fault
    found = written("multiple_choice", [UNIT], answers)
    return [*found.pairs, *found.rejects][0]


def test_the_right_option_is_named_by_its_letter():
    pair = outcome()
    lines = pair.question.split("\n")
    assert (lines[0], lines[-1]) == ("What colour is the car?", CLOSING)
    assert sorted(line[3:] for line in lines[1:-1]) == ["Blue", "Green", "Red"]
    assert [line[:3] for line in lines[1:-1]] == ["A. ", "B. ", "C. "]
    assert f"{pair.answer}. Red" in lines
    assert FORMS.get("multiple_choice").turns(Texts(pair.question, pair.answer)) == (pair.question, pair.answer)


def test_the_order_of_the_options_is_drawn_by_image_and_option():
    assert outcome() == outcome(wrong_1="Green", wrong_2="", wrong_3="Blue")
    texts = FORMS.get("multiple_choice").texts
    places = Counter(
        texts({**GOOD, "wrong_3": "White", "image": f"i{n}", "task_type": "a", "language": ""}).answer
        for n in range(4000)
    )
    assert sorted(places) == ["A", "B", "C", "D"]
    assert all(900 < number < 1100 for number in places.values()), places


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"wrong_1": "", "wrong_2": ""}, "`wrong_1` must be an answer that is wrong"),
        ({"wrong_2": "red."}, "options must differ"),
        ({"wrong_1": "the RED"}, "options must differ"),
        ({"answer": "3", "wrong_1": "three"}, "options must differ"),
        ({"answer": "1,500", "wrong_1": "1500.0"}, "options must differ"),
        ({"wrong_2": "All of the above"}, "must not speak of the others"),
        ({"wrong_2": "None of these"}, "must not speak of the others"),
        ({"wrong_2": "Blue\nGreen"}, "one line"),
        ({"wrong_2": "x" * 301}, "300 characters"),
        ({"answer": "A. Red", "wrong_1": "B. Blue", "wrong_2": "C) Green"}, "must not begin with letters"),
        ({"question": "Which?\nA. Red\nB. Blue"}, "must not list the options"),
        ({"wrong_1": "..."}, "stands for a text in the example"),
    ],
)
def test_options_that_cannot_be_told_apart_or_put_in_order_are_sent_back(fields, told):
    assert told in outcome(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": "1.5", "wrong_1": "15", "wrong_2": "1.50 m"},
        {"answer": "A. Miller", "wrong_1": "B. Jones", "wrong_2": "Smith"},
        {"answer": "C", "wrong_1": "C++", "wrong_2": "C#"},
        {"answer": "red; blue", "wrong_1": "red; blue; green", "wrong_2": "red"},
        {"answer": "-3", "wrong_1": "3", "wrong_2": "−3 °C"},
        {"answer": "A", "wrong_1": "The", "wrong_2": "an"},
    ],
)
def test_options_that_differ_in_what_they_say_pass(fields):
    assert isinstance(outcome(**fields), Pair)


def test_who_finds_nothing_to_ask_declines():
    assert outcome(question="", answer="").reason == Reason.DECLINED
    assert outcome(question="", answer="", wrong_1="", wrong_2="").reason == Reason.DECLINED
    assert (outcome(answer="").reason, outcome(answer="").detail) == (Reason.EMPTY, "no answer")


def of_form(form: str, image: str = "i1", **fields: Any) -> Any:
    """The pair that a reply of a form becomes, its reject, or what the teacher is told."""
    template = write_template("Write.", MODEL, form)
    (unit,) = write_units(template, [Relevant(image, "a~b", "seen")])
    answers, fault = template.parse([unit], json.dumps({"pairs": [{"index": 1, **fields}]}))
    if unit.key not in answers:
        return fault
    found = written(form, [unit], answers)
    return [*found.pairs, *found.rejects][0]


def both(image: str = "i1", **fields: str) -> Any:
    return of_form("yes_no", image, **fields)


def test_yes_and_no_are_as_often_right_whatever_is_asked():
    pairs = [both(f"i{n}", question_yes="Is it red?", question_no="Is it blue?") for n in range(2000)]
    assert {(pair.question, pair.answer) for pair in pairs} == {("Is it red?", "Yes"), ("Is it blue?", "No")}
    assert 900 < sum(pair.answer == "Yes" for pair in pairs) < 1100


def test_where_one_question_can_be_asked_it_is_the_pair():
    assert both(question_yes="", question_no="Is it red?").answer == "No"
    assert both(question_yes="Is it red?", question_no="").answer == "Yes"
    assert both(question_yes="", question_no="").reason == Reason.DECLINED
    assert "must be two questions" in both(question_yes="Is it red?", question_no="is it Red")
    assert "stands for a text" in both(question_yes="Is it red?", question_no="...")


def lacks(image: str = "i1", question: str = "What does the tea cost?", missing: str = "a price for the tea") -> Any:
    return of_form("unanswerable", image, question=question, missing=missing)


def test_what_is_missing_is_told_in_one_of_a_few_sentences_drawn_by_image():
    answers = Counter(lacks(f"i{n}").answer for n in range(600))
    assert sorted(answers) == sorted(wording.format(missing="a price for the tea") for wording in WORDINGS)
    assert min(answers.values()) > 60
    assert lacks(missing="A price for the tea.") == lacks()
    assert "Dr. Miller" in lacks(missing="Dr. Miller").answer


def test_an_answer_that_declines_is_told_from_one_that_answers_and_passes_the_checks():
    rules = rules_of(CheckSettings())
    for image in map(str, range(60)):
        pair = lacks(image)
        assert declines(pair.answer) and broken(rules, pair) is None
    for text in ("You can't tell: the label is cut off.", "There is no date in the image.", "It is unanswerable."):
        assert declines(text)
    for text in ("$2.40", "Nobody is there but the driver.", "Red", "The notice says it is closed."):
        assert not declines(text)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"missing": ""}, "`missing` must name"),
        ({"missing": "The image does not show a price"}, "the thing alone"),
        ({"missing": "a price. So I cannot say"}, "the thing alone"),
        ({"missing": "x" * 151}, "the thing alone"),
        ({"missing": "..."}, "stands for a text"),
        ({"question": "Is there a price for the tea?"}, "must not ask whether"),
        ({"question": "Can you see the price?"}, "must not ask whether"),
    ],
)
def test_what_is_no_thing_that_is_missing_or_has_an_answer_is_sent_back(fields, told):
    assert told in lacks(**fields)


def test_who_finds_that_the_image_answers_all_declines():
    assert lacks(question="", missing="").reason == Reason.DECLINED
    assert (lacks(question="").reason, lacks(question="").detail) == (Reason.EMPTY, "no question")


def placed(x1: Any = 100, y1: Any = 200, x2: Any = 300, y2: Any = 500, question: str = "Where is the cup?") -> Any:
    return of_form("grounded", question=question, x1=x1, y1=y1, x2=x2, y2=y2)


def test_a_place_is_a_box_in_thousandths_that_is_told_from_others_by_overlap():
    pair = placed()
    assert (pair.question, pair.answer) == (f"Where is the cup?\n{grounded.CLOSING}", "[100, 200, 300, 500]")
    assert grounded.box_of(pair.answer) == (100, 200, 300, 500)
    assert grounded.iou((0, 0, 10, 10), (0, 5, 10, 15)) == pytest.approx(1 / 3)
    assert grounded.iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert grounded.right(pair.answer, "It is at [100,200,300,350].")
    assert not grounded.right(pair.answer, "[100, 200, 300, 349]")
    assert not grounded.right(pair.answer, "[100, 200, 300, 350]", least=0.7)
    for said in ("on the left", "", "[1, 2, 3]", "[300, 200, 100, 500]", "[100, 200, 300, 5000]", f"{pair.answer * 2}"):
        assert not grounded.right(pair.answer, said), said


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        ({"x2": 100}, "`x1` must be left of `x2`"),
        ({"y1": 900}, "`y1` above `y2`"),
        ({"x2": 1024}, "and not pixels"),
        ({"x1": -1}, "and not pixels"),
        ({"x2": 102}, "too small"),
        ({"x2": 108, "y2": 208}, "too small"),
        ({"x1": 0, "y1": 0, "x2": 1000, "y2": 1000}, "nearly the whole image"),
        ({"x1": 100.4}, "`x1` must be int"),
        ({"question": "..."}, "stands for a text"),
    ],
)
def test_a_box_that_holds_nothing_or_everything_is_sent_back(sides, told):
    assert told in placed(**sides)


def test_a_box_s_sides_may_be_written_as_texts_and_its_lack_declines():
    assert placed(x1="100", y2=500.0) == placed()
    assert placed(0, 0, 0, 0, question="").reason == Reason.DECLINED
    example = write_template("Write.", MODEL, "grounded").reply_form
    assert '"x1": 120, "y1": 85, "x2": 430, "y2": 600' in example


SAID = (
    "A red kettle stands on a stove with four rings. Its spout points to the left. "
    "Behind it hang three towels, one of them blue."
)


def described(description: str = SAID, image: str = "i1") -> Any:
    return of_form("long_description", image, description=description)


def test_how_a_description_is_asked_for_is_drawn_by_image():
    asked = Counter(described(image=f"i{n}").question for n in range(600))
    assert sorted(asked) == sorted(QUESTIONS) and min(asked.values()) > 60
    assert described().answer == SAID
    assert described("").reason == Reason.DECLINED


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("...", "stands for a text"),
        ("A kettle.", "at least 3 sentences"),
        ("A red kettle stands on a stove " * 10, "at least 3 sentences"),
        (SAID * 30, "at most 3000 characters"),
        (f"{SAID}\n- a stove\n- a kettle", "running text"),
        (f"{SAID} It may be old. Perhaps it is hot. Someone possibly left it there.", "more guesses"),
    ],
)
def test_a_description_that_is_none_is_sent_back(text, told):
    assert told in described(text)


def test_a_description_may_hold_numbers_and_be_in_another_script():
    assert isinstance(described("The total is 12.50 dollars. It may be old. " + SAID), Pair)
    assert isinstance(described("图中有一只红色的水壶。" * 12), Pair)


def test_a_form_in_a_language_is_the_form_with_its_own_words_in_it():
    template = write_template("Write.", MODEL, "plain-de")
    assert template.head == {"request": "write", "variant": "plain-de", "language": "German"}
    assert template.form is None and "language" not in write_template("Write.", MODEL, "plain").head
    german = of_form("multiple_choice-de", **{**GOOD, "question": "Welche Farbe hat das Auto?", "answer": "Rot"})
    assert german.variant == "multiple_choice-de" and german.question.endswith(multiple_choice.CLOSINGS["de"])
    assert write_template("Write.", MODEL, "multiple_choice-de").form == {"name": "multiple_choice-de", "version": "1"}
    assert of_form("yes_no-de", question_yes="Ist es rot?", question_no="").answer == "Ja"
    missing = of_form("unanswerable-de", question="Was kostet der Tee?", missing="der Preis").answer
    assert "der Preis" in missing and declines(missing)
    box = {"x1": 0, "y1": 0, "x2": 100, "y2": 100}
    assert "Rahmen" in of_form("grounded-de", question="Wo ist die Tasse?", **box).question
    assert "Bild" in of_form("long_description-de", description=SAID).question


@pytest.mark.parametrize("form", ["yes_no-zh", "grounded-vi"])
def test_a_form_whose_own_words_are_in_no_such_language_is_refused(form):
    with pytest.raises(ValidationError, match=f"none in .*'{form}' cannot be written"):
        WriteSettings(variants=(form,))
    assert WriteSettings(variants=("plain-zh", "chain_of_thought-vi", "yes_no-ru"))


@pytest.mark.parametrize("form", ["plain-xx", "plain-", "-de", "plain-de-de", "plain_de"])
def test_a_language_that_is_not_known_is_told_with_those_that_are(form):
    with pytest.raises(ValidationError, match=r"in a language, such as 'plain-de' \(ar, de, es"):
        WriteSettings(variants=(form,))


def test_the_prompt_of_a_form_in_a_language_is_the_form_s_and_says_so(tmp_path):
    prompts = load_prompts({}, ["plain-de", "yes_no-ru"])
    assert prompts["write_plain-de"].startswith(prompts["write_plain"])
    assert "in German" in prompts["write_plain-de"] and "in Russian" in prompts["write_yes_no-ru"]
    assert "write_yes_no" not in prompts
    (tmp_path / "own.md").write_text("Ask briefly.")
    own = load_prompts({"write_plain": str(tmp_path / "own.md")}, ["plain-de"])
    assert own["write_plain-de"].startswith("Ask briefly.\n\nWrite all texts of your reply in German")


def test_the_checks_expect_the_language_of_the_form():
    rules = rules_of(CheckSettings())

    def found(variant: str, question: str, answer: str = "x") -> Any:
        return broken(rules, Pair("p", "i1", "a~b", variant, question, answer))

    german, english = "Welche Farbe hat der Kreis auf dem Bild?", "What is the colour of the circle in this image?"
    assert found("plain-de", german) is None and found("plain", english) is None
    assert found("plain-de", english) == (Reason.BY_RULE, "another language: english")
    assert found("plain", german) == (Reason.BY_RULE, "another language: german")
    assert found("plain-zh", "图中的圆形是什么颜色的？") is None
    assert found("plain-zh", german) == (Reason.BY_RULE, "another language: latin")
    assert found("plain-ja", "この画像の丸は何色ですか？") is None
    assert found("plain-de", "Ist der Kreis rot oder blau?", "rot") is None


def test_its_version_is_in_its_units_keys_alone_and_its_replies_can_be_read_again():
    assert CHOICE.form == {"name": "multiple_choice", "version": "1"}
    assert write_template("Write.", MODEL, "plain").form is None
    assert reader(MODEL, "multiple_choice").schema == CHOICE.schema


def test_a_form_that_came_later_has_its_prompt_where_it_is_written_alone():
    assert "write_multiple_choice" not in load_prompts({}, ["plain"])
    assert "wrong_1" in load_prompts({}, ["plain", "multiple_choice"])["write_multiple_choice"]


# The simulated models


def picture() -> bytes:
    """A blue circle on a light ground."""
    image = Image.new("RGB", (64, 64), (236, 244, 240))
    ImageDraw.Draw(image).ellipse((20, 24, 46, 50), fill=(30, 60, 200))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def ask(
    template: RequestTemplate, units: list[RequestItem], config: SimulatorConfig, raw: bytes | None = None
) -> list[Any]:
    """The entries that a simulated model answers with, which the template must be able to read. raw: of what image."""
    url = "data:image/png;base64," + base64.b64encode(raw or picture()).decode()
    parts = [{"type": "text", "text": template.text(units)}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": template.model.model, "messages": [{"role": "user", "content": parts}]}
    asked = parse(json.dumps(body).encode())
    entries = answer(config, asked, open_images(asked)).entries
    answers, fault = template.parse(units, json.dumps({template.replies: entries}))
    assert not fault and set(answers) == {unit.key for unit in units}
    return [answers[unit.key] for unit in units]


TYPES = [f"{SHAPE}{leaf}" for leaf in ("shape naming", "shape colour identification", "corner counting")]
NO_ERRORS = JudgeErrors(false_accept=0, false_reject=0)


def simulated(name: str, config: SimulatorConfig, types: Sequence[str] = TYPES) -> list[Pair]:
    """The pairs that the simulated teacher writes in a form, one for each task type."""
    form = write_template("Write.", MODEL, name)
    units = write_units(form, [Relevant("i1", path, "") for path in types])
    answers = dict(zip([unit.key for unit in units], ask(form, units, config), strict=True))
    pairs = written(name, units, answers).pairs
    assert len(pairs) == len(types)
    return pairs


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_writes_options_and_judges_find_the_right_one(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    pairs = simulated("multiple_choice", config)
    for name in ("a", "b", "c"):
        judge = vote_template("Vote.", Model(name=name, base_url="http://x/v1", model=f"sim-judge-{name}"), True)
        for pair in pairs:
            ((vote),) = ask(judge, [vote_unit(judge, pair)], config)
            assert vote.value["vote"] == 1 - wrong_share, (pair, vote)
            swapped = next(letter for letter in options.read(pair.question).options if letter != pair.answer)
            other = replace(pair, answer=swapped)
            ((vote),) = ask(judge, [vote_unit(judge, other)], config)
            assert wrong_share or vote.value["vote"] == 0, (other, vote)


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_what_is_answered_by_yes_or_no_gets_options_to_choose_from(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    types = [f"{SHAPE}shape presence check", "colour~main colours~colour presence check"]
    for pair in simulated("multiple_choice", config, types):
        choice = options.read(pair.question)
        assert choice and len(choice.options) >= 3 and not {"Yes", "No"} & {*choice.options.values()}
        assert (choice.options[pair.answer] in {"circle", "blue"}) != bool(wrong_share)
        assert (sum(votes(pair, config)) >= 2) != bool(wrong_share), pair
    form = write_template("Write.", MODEL, "multiple_choice")
    units = write_units(form, [Relevant("i1", "image quality & photography~composition~border presence", "")])
    (reply,) = ask(form, units, config)
    assert reply.value["question"] == "", "it has no third answer"


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_asks_for_yes_and_for_no_and_judges_see_which(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    form = write_template("Write.", MODEL, "yes_no")
    units = write_units(form, [Relevant("i1", path, "") for path in [*TYPES, f"{SHAPE}shape presence check"]])
    for unit, reply in zip(units, ask(form, units, config), strict=True):
        assert reply.value["question_yes"] and reply.value["question_no"]
        for name in ("a", "b", "c"):
            judge = vote_template("Vote.", Model(name=name, base_url="http://x/v1", model=f"sim-judge-{name}"), True)
            for field, said in (("question_yes", "Yes"), ("question_no", "No")):
                for claimed in ("Yes", "No"):
                    pair = Pair("p", "i1", unit.item["task_type"], "yes_no", reply.value[field], claimed)
                    ((vote),) = ask(judge, [vote_unit(judge, pair)], config)
                    assert vote.value["vote"] == ((claimed == said) != bool(wrong_share)), (pair, vote)


def votes(pair: Pair, config: SimulatorConfig, raw: bytes | None = None) -> list[int]:
    """What the three simulated judges say of a pair."""
    found = []
    for name in ("a", "b", "c"):
        judge = vote_template("Vote.", Model(name=name, base_url="http://x/v1", model=f"sim-judge-{name}"), True)
        ((vote),) = ask(judge, [vote_unit(judge, pair)], config, raw)
        found.append(vote.value["vote"])
    return found


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_asks_for_what_is_not_there_and_judges_look_for_it(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    pairs = simulated("unanswerable", config)
    for pair in pairs:
        assert votes(pair, config) == [1 - wrong_share] * 3, pair
    if not wrong_share:
        assert votes(replace(pairs[1], question="What colour is the circle?"), config) == [0, 0, 0]


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_places_a_shape_and_judges_measure_it(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    pairs = simulated("grounded", config)
    for pair in pairs:
        assert votes(pair, config) == [1 - wrong_share] * 3, pair
        assert grounded.right("[313, 375, 719, 781]", pair.answer, least=0.9) != bool(wrong_share)
    other = replace(pairs[0], question=pairs[0].question.replace("circle", "triangle"))
    assert votes(other, config) == [0, 0, 0]


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_describes_and_judges_check_each_statement(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    (pair,) = simulated("long_description", config, ["image description~short caption writing"])
    assert votes(pair, config) == [1 - wrong_share] * 3, pair
    assert votes(replace(pair, answer=f"{pair.answer} A dog barks."), config) == [0, 0, 0]


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_asks_in_german_and_judges_read_it(wrong_share):
    config = SimulatorConfig(seed=3, wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    pairs = simulated("plain-de", config)
    for pair in pairs:
        assert votes(pair, config) == [1 - wrong_share] * 3, pair
    if not wrong_share:
        assert {pair.answer for pair in pairs} == {"Kreis", "blau", "0"}
        assert all(votes(replace(pair, answer="rot"), config) == [0, 0, 0] for pair in pairs)
