"""Which question forms a match is written in: by what suits its task type, and by shares that move little."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.form_shares import forms_of, questions_of, suited, suits
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Reason, Relevant
from taskgalaxy_ops.settings import Settings, WriteSettings, parse_settings

FORMS = ("multiple_choice", "plain", "yes_no")
MATCHES = [(f"image {number // 4}", f"a~b~{number % 4}") for number in range(4000)]


def drawn(shares: dict[str, float] | None, **suited_by: list[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    write = WriteSettings(variants=FORMS, shares=shares, suits=suited_by)
    patterns = suited(write)
    return {match: forms_of(write, patterns, *match) for match in MATCHES}


def settings_with(**write: Any) -> Settings:
    model = {"name": "m", "base_url": "http://x/v1", "model": "m"}
    raw = {"teacher": {**model, "name": "t"}, "judges": [model], "vote": {"quorum": 1}, "write": write}
    return parse_settings(raw)


def test_a_match_is_written_in_one_form_each_as_often_as_its_share_says():
    found = drawn({"plain": 5, "multiple_choice": 3, "yes_no": 2})
    counts = Counter(form for forms in found.values() for form in forms)
    assert sum(counts.values()) == len(MATCHES)
    shares = {"plain": 0.5, "multiple_choice": 0.3, "yes_no": 0.2}
    assert all(abs(counts[form] / len(MATCHES) - share) < 0.03 for form, share in shares.items())


@given(
    shares=st.fixed_dictionaries(dict.fromkeys(FORMS, st.floats(0.1, 10))),
    raised=st.sampled_from(FORMS),
    by=st.floats(1, 10),
)
def test_a_share_that_is_raised_moves_matches_to_its_form_alone(shares: dict[str, float], raised: str, by: float):
    before, after = drawn(shares), drawn({**shares, raised: shares[raised] * by})
    assert all(after[match] in (before[match], (raised,)) for match in MATCHES)


def test_without_shares_a_match_is_written_in_every_form_that_suits_it():
    found = drawn(None, plain=["a~b~1", "a~b~2"], yes_no=["!*~3"])
    assert found["image 0", "a~b~0"] == ("multiple_choice", "yes_no")
    assert found["image 0", "a~b~1"] == FORMS
    assert found["image 0", "a~b~3"] == ("multiple_choice",)
    asked = questions_of(WriteSettings(variants=FORMS, suits={"plain": ["a~b~1"], "yes_no": ["!*~3"]}))
    assert [asked(f"a~b~{number}") for number in range(4)] == [2, 3, 2, 1]


@pytest.mark.parametrize(
    ("patterns", "suitable"),
    [
        ([], True),
        (["ocr"], True),
        (["ocr~printed text"], True),
        (["ocr~printed"], False),  # a node, not the beginning of its name
        (["*reading"], True),
        (["colour", "ocr"], True),
        (["!ocr~printed text"], False),
        (["ocr", "!*title*"], False),
        (["!colour"], True),
    ],
)
def test_patterns_are_nodes_or_have_wildcards(patterns: list[str], suitable: bool):
    assert suits(patterns, "ocr~printed text~title reading") is suitable


def test_what_no_form_suits_is_a_reject():
    settings = settings_with(variants=["plain"], suits={"plain": ["ocr"]})
    templates = write_stage.templates(load_prompts({}, ["plain"]), settings)
    rows = [Relevant("i1", "ocr~a", ""), Relevant("i1", "colour~b", "")]
    work = write_stage.work(templates, rows, settings)
    ((_, units),) = work.needed({})
    assert [unit.item for unit in units] == [{"task_type": "ocr~a"}]
    output = work.output({})
    (reject,) = output.rows["rejects"]
    assert (reject.reason, reject.task_type, reject.variant) == (Reason.NO_FORM, "colour~b", None)
    assert (output.units_in, output.units_out, output.pending) == (2, 0, 1)


def test_unset_they_change_nothing_that_is_kept():
    assert WriteSettings().model_dump(mode="json") == {"variants": ["plain"]}
    assert write_stage.rules(settings_with(variants=["plain", "chain_of_thought"])) == {
        "variants": ["chain_of_thought", "plain"]
    }


@pytest.mark.parametrize(
    ("write", "told"),
    [
        ({"variants": ["plain", "yes_no"], "shares": {"plain": 1}}, "shares must name the forms of `variants`.*yes_no"),
        ({"variants": ["plain"], "shares": {"plain": 1, "yes_no": 1}}, "mend yes_no"),
        ({"variants": ["plain"], "shares": {"plain": 0}}, "greater than 0"),
        ({"variants": ["plain"], "suits": {"yes_no": []}}, "suits names yes_no, which `variants` lacks"),
        ({"variants": ["plain"], "suits": {"plain": ["ocr~ receipts"]}}, "is no path of a node"),
        ({"variants": ["plain"], "suits": {"plaine": []}}, "Input should be"),
    ],
)
def test_wrong_shares_are_told(write: dict[str, Any], told: str):
    with pytest.raises(SettingsError, match=told):
        settings_with(**write)
