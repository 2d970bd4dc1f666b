"""Questions of other images, asked of those that do not answer them."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from taskgalaxy_ops.generation.checks import broken, rules_of
from taskgalaxy_ops.generation.forms.unanswerable import declines
from taskgalaxy_ops.generation.stages import write
from taskgalaxy_ops.generation.swaps import WORDINGS, swapped
from taskgalaxy_ops.records import Answer, Pair, Reason, Relevant
from taskgalaxy_ops.settings import WriteSettings
from taskgalaxy_ops.settings.checks import CheckSettings
from taskgalaxy_ops.simulator import absences
from tests.tiny import tiny_settings

ROWS = [Relevant(f"i{n}", "a~b", "") for n in range(40)]
PLAIN = [Pair(f"p{n}", f"i{n}", "a~b", "plain", f"What is {n}?", str(n)) for n in range(40)]


def asked(rows: list[Relevant], pairs: list[Pair], share: float = 1) -> dict[str, str]:
    return {pair.image: pair.question for pair in swapped(rows, pairs, (), share).pairs}


def test_each_takes_another_image_s_question_whatever_the_order():
    found = swapped(ROWS, PLAIN, (), 1)
    assert len(found.pairs) == found.drawn == 40
    own = {pair.image: pair.question for pair in PLAIN}
    assert all(own[pair.image] != pair.question and pair.variant == "unanswerable" for pair in found.pairs)
    rows = random.Random(1).sample(ROWS, 40)
    assert asked(rows, PLAIN[::-1]) == asked(ROWS, PLAIN)
    assert 5 < swapped(ROWS, PLAIN, (), 0.3).drawn < 20


def test_an_image_that_joins_moves_few():
    before, after = asked(ROWS[:39], PLAIN[:39]), asked(ROWS, PLAIN)
    assert sum(before[image] != after[image] for image in before) < 5


def test_who_would_take_a_question_that_is_not_written_yet_waits_and_who_finds_none_is_rejected():
    full = swapped(ROWS, PLAIN, (), 1)
    taken = next(pair for pair in PLAIN if pair.question == full.pairs[0].question)
    rest = [pair for pair in PLAIN if pair is not taken]
    waiting = swapped(ROWS, rest, {(taken.image, "a~b")}, 1)
    assert (full.pairs[0].image, "a~b") in waiting.pending and waiting.drawn == 40
    assert set(waiting.pairs) < set(full.pairs)
    alike = [Pair(f"p{n}", f"i{n}", "a~b", "plain", "What is it?", "x") for n in range(40)]
    assert {reject.reason for reject in swapped(ROWS, alike, (), 1).rejects} == {Reason.DECLINED}
    assert len(swapped(ROWS[:1], PLAIN[:1], (), 1).rejects) == 1


def test_its_answers_decline_in_everybody_s_eyes():
    rules = rules_of(CheckSettings())
    for wording in WORDINGS:
        assert declines(wording) and absences.said(wording)
        assert broken(rules, Pair("p", "i", "a~b", "unanswerable", "What is the name of the shop?", wording)) is None


def test_it_changes_what_is_written_only_where_it_is_set(tmp_path):
    chosen = tiny_settings(tmp_path)
    with_swaps = chosen.model_copy(update={"write": WriteSettings(variants=("plain",), swapped=1)})
    assert "swapped" not in write.rules(chosen) and "swapped" not in chosen.model_dump(mode="json")["write"]
    templates = write.templates({"write_plain": "Write."}, with_swaps)
    work = write.work(templates, ROWS, with_swaps)
    units = work.needed({})[0][1]
    answers = {
        unit.key: Answer({"question": f"What is {n}?", "answer": "x", "reasoning": ""}) for n, unit in enumerate(units)
    }
    made = work.output(answers)
    assert (made.units_in, made.units_out, made.pending) == (80, 80, 0)
    first = dict(list(answers.items())[:20])
    part = work.output(first)
    assert part.units_in == part.units_out + len(part.rows["rejects"]) + part.pending
    with pytest.raises(ValidationError, match="add plain"):
        WriteSettings(variants=("yes_no",), swapped=0.1)
