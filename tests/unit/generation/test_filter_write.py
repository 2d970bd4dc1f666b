"""Filter and write: everything that goes in comes out, and nothing that a trainer would take for markup goes on."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.generation.stages.filter import filter_template, filter_units, filtered
from taskgalaxy_ops.generation.stages.write import write_template, write_units, written
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Answer, Match, Pair, Reason, Reject, Relevant, pair_id
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.text import clean

MODEL = Model(name="t", base_url="http://x/v1", model="m")
FILTER = filter_template("Decide.", MODEL)
WRITE = {variant: write_template("Write.", MODEL, variant) for variant in ("plain", "chain_of_thought")}


def answer_to(asked, unit, /, **fields):
    """The answer that a reply with these fields comes to, or what is wrong with it."""
    answers, fault = asked.parse([unit], json.dumps({asked.replies: [{"index": 1, **fields}]}))
    return answers.get(unit.key, fault)


def write(variant="plain", question="What is it?", answer="A cat.", reasoning="It has whiskers."):
    """What becomes of one written pair."""
    asked = WRITE[variant]
    (unit,) = write_units(asked, [Relevant("i1", "a~b", "seen")])
    found = written(
        variant, [unit], {unit.key: answer_to(asked, unit, question=question, answer=answer, reasoning=reasoning)}
    )
    assert found.pending == 0
    (row,) = [*found.pairs, *found.rejects]
    return row


# Filter


def test_fitting_matches_are_relevant_and_the_others_rejects_with_their_reason():
    units = filter_units(FILTER, [Match(f"i{i}", "a~b", 0.5, 1) for i in range(5)])
    answers = {
        units[0].key: Answer({"fits": True, "reason": "a cat"}),
        units[1].key: Answer({"fits": False, "reason": "no text"}),
        units[2].key: Answer(terminal=Reason.REFUSED, detail="content filter"),
        units[3].key: Answer(terminal=Reason.MALFORMED, detail="the reply is not JSON"),
    }
    found = filtered(units, answers)
    assert found.relevant == [Relevant("i0", "a~b", "a cat")]
    assert found.rejects == [
        Reject("filter", "i1", "a~b", Reason.NOT_FITTING, "no text"),
        Reject("filter", "i2", "a~b", Reason.REFUSED, "content filter"),
        Reject("filter", "i3", "a~b", Reason.MALFORMED, "the reply is not JSON"),
    ]
    assert found.pending == 1


def test_rank_and_similarity_are_not_shown_to_the_teacher():
    first, second = (filter_units(FILTER, [Match("i", "a", s, r)])[0] for s, r in ((0.9, 1), (0.1, 7)))
    assert first == second
    assert first.item == {"task_type": "a"}


STATES = st.sampled_from(["pending", "yes", "no", "refused", "malformed"])
ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["i1", "i2", "i3"]), st.sampled_from(["a", "a~b", "b", "ü~c"])), STATES, max_size=12
)


@settings(deadline=None)
@given(ROWS, st.randoms())
def test_of_the_filter_what_goes_in_comes_out_in_one_order(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    units = filter_units(FILTER, [Match(image, path, 0.5, 1) for image, path in shuffled])
    made = {
        "yes": Answer({"fits": True, "reason": "r"}),
        "no": Answer({"fits": False, "reason": "r"}),
        "refused": Answer(terminal=Reason.REFUSED),
        "malformed": Answer(terminal=Reason.MALFORMED, detail="x"),
    }
    answers = {unit.key: made[rows[at]] for at, unit in zip(shuffled, units, strict=True) if rows[at] != "pending"}
    found = filtered(units, answers)
    assert len(found.relevant) + len(found.rejects) + found.pending == len(rows)
    assert found.pending == list(rows.values()).count("pending")
    assert [(r.image, r.task_type) for r in found.relevant] == sorted(at for at in rows if rows[at] == "yes")
    assert [(r.image, r.task_type) for r in found.rejects] == sorted(
        at for at in rows if rows[at] not in {"yes", "pending"}
    )
    assert filtered(units[::-1], answers) == found


# Write


def test_a_pair_is_named_by_all_that_it_says():
    pair = write("plain")
    assert pair == Pair(
        pair_id("i1", "a~b", "plain", "What is it?", "A cat.", None),
        "i1",
        "a~b",
        "plain",
        "What is it?",
        "A cat.",
        None,
    )
    thought = write("chain_of_thought")
    assert thought.reasoning == "It has whiskers."
    assert thought.pair == pair_id("i1", "a~b", "chain_of_thought", "What is it?", "A cat.", "It has whiskers.")
    names = {pair.pair, thought.pair, write(question="?").pair, write(answer="!").pair}
    names.add(write("chain_of_thought", reasoning="Other.").pair)
    assert len(names) == 5


def test_the_plain_variant_keeps_no_reasoning():
    assert write("plain", reasoning="x") == write("plain", reasoning="")


def test_a_variant_is_a_unit_of_its_own():
    row = Relevant("i1", "a~b", "seen")
    keys = [write_units(WRITE[variant], [row])[0].key for variant in WRITE]
    assert len(set(keys)) == 2
    assert write_units(WRITE["plain"], [Relevant("i1", "a~b", "for another reason")])[0].key == keys[0]


@pytest.mark.parametrize("variant", WRITE)
@pytest.mark.parametrize("nothing", ["", " \n\t", "\u200b", "\x00"])
def test_a_teacher_who_finds_nothing_to_ask_declines(variant, nothing):
    found = write(variant, question=nothing, answer=nothing)
    assert (found.stage, found.reason, found.variant, found.pair) == ("write", Reason.DECLINED, variant, None)
    assert found.detail == "the teacher found nothing to ask"


@pytest.mark.parametrize("nothing", ["", " ", "\u202e"])
def test_half_a_pair_is_empty(nothing):
    assert write(question=nothing).detail == "no question"
    assert write(answer=nothing).detail == "no answer"
    assert write("chain_of_thought", reasoning=nothing).detail == "no reasoning"
    assert write(question=nothing).reason == write("chain_of_thought", reasoning=nothing).reason == Reason.EMPTY
    assert isinstance(write("plain", reasoning=nothing), Pair)


SPECIAL = [
    "<image>", "<IMAGE>", "< image >", "<image\n>", "<|im_start|>", "<|endoftext|>", "<|image_1|>", "<s>", "</s>",
    "[INST]", "[/INST]", "[inst]", "<im\u200bage>", "<|im_\u2060end|>", "<\x00image>", "<||>",
]  # fmt: skip


@pytest.mark.parametrize("token", SPECIAL)
@pytest.mark.parametrize("place", ["question", "answer", "reasoning"])
def test_special_tokens_get_other_brackets_wherever_they_stand(token, place):
    found = write("chain_of_thought", **{place: f"Look: {token} here"})
    assert getattr(found, place) == f"Look: {neutral(clean(token))} here" != f"Look: {token} here"


@pytest.mark.parametrize("token", ["<image>", "<|im_end|>", "</s>", "[INST]"])
@pytest.mark.parametrize("place", ["question", "answer", "reasoning"])
def test_special_tokens_in_answers_of_an_older_version_stay_rejects(token, place):
    (unit,) = write_units(WRITE["chain_of_thought"], [Relevant("i1", "a~b", "")])
    kept = Answer({"question": "q", "answer": "a", "reasoning": "r", place: f"Look: {token} here"})
    (found,) = written("chain_of_thought", [unit], {unit.key: kept}).rejects
    assert found.reason == Reason.UNSAFE_TEXT and repr(token) in found.detail


def test_a_special_token_in_reasoning_that_is_not_kept_harms_nobody():
    assert isinstance(write("plain", reasoning="<image>"), Pair)


@pytest.mark.parametrize(
    "text",
    ["What is in the image?", "a < b > c", "<b>bold</b>", "x | y", "[INSTITUTE]", "<images>", "1 <| 2", "p < .05"],
)
def test_common_text_is_not(text):
    assert write(question=text).question == text


def test_text_is_kept_without_what_cannot_be_seen():
    pair = write(question="  What\u202e is\x00 it?\n", answer="cafe\u0301")
    assert (pair.question, pair.answer) == ("What is it?", "caf\u00e9")


@pytest.mark.parametrize(
    "fields", [{"question": [1]}, {"answer": None}, {"answer": True}, {"reasoning": ["x"]}, {"question": "x" * 4001}]
)
def test_a_malformed_pair_is_no_answer(fields):
    (unit,) = write_units(WRITE["plain"], [Relevant("i1", "a~b", "")])
    (name,) = fields
    assert f"`{name}`" in answer_to(WRITE["plain"], unit, **{"question": "q", "answer": "a", "reasoning": ""} | fields)


TEXT = st.sampled_from(["", "x", " ", "<image>", "?"])
REPLY = st.one_of(
    st.none(),
    st.builds(lambda reason: Answer(terminal=reason), st.sampled_from([Reason.REFUSED, Reason.MALFORMED])),
    st.builds(lambda q, a, r: Answer({"question": q, "answer": a, "reasoning": r}), TEXT, TEXT, TEXT),
)


@settings(deadline=None)
@given(st.dictionaries(st.tuples(st.sampled_from("ij"), st.sampled_from("abc")), REPLY), st.sampled_from(list(WRITE)))
def test_of_what_is_written_everything_comes_out(rows, variant):
    units = write_units(WRITE[variant], [Relevant(image, path, "r") for image, path in rows])
    answers = {unit.key: rows[unit.image, unit.item["task_type"]] for unit in units}
    answers = {key: answer for key, answer in answers.items() if answer is not None}
    found = written(variant, units, answers)
    assert len(found.pairs) + len(found.rejects) + found.pending == len(rows)
    assert found.pending == len(rows) - len(answers)
    for row in (found.pairs, found.rejects):
        assert [(r.image, r.task_type) for r in row] == sorted((r.image, r.task_type) for r in row)
        assert {r.variant for r in row} <= {variant}
    assert written(variant, units[::-1], answers) == found
