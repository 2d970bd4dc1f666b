"""Where servers put the text of a reply, and how they say that it was cut or refused."""

import json

import pytest

from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.models.reply import FIRST, ModelReply, interpret, reply_text
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.settings import Model

FILTER = filter_template("Decide.", Model(name="t", base_url="http://x/v1", model="m"))
UNIT = FILTER.unit("ab" * 32, {"task_type": "a~b"})
SAID = json.dumps({"verdicts": [{"index": 1, "fits": True, "reason": "seen"}]})


def completion(finish="stop", **message):
    return {"choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}]}


def interpreted(data):
    reply = ModelReply(
        data=data, units=[UNIT], template=FILTER, block="b", ceiling=0, cost=0, attempts=1, seen=0, seconds=0.0, note={}
    )
    return interpret(reply, FIRST)


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": SAID}}
PLACES = {
    "a text": completion(content=SAID),
    "parts": completion(content=[{"type": "text", "text": SAID[:9]}, {"type": "text", "text": SAID[9:]}]),
    "parts with a thought": completion(
        content=[{"type": "thinking", "thinking": [{"type": "text", "text": "{}"}]}, {"type": "text", "text": SAID}]
    ),
    "parts of the Responses API": completion(content=[{"type": "output_text", "text": SAID}]),
    "parts that are texts": completion(content=[SAID]),
    "an object": completion(content=json.loads(SAID)),
    "a call of a tool": completion(finish="tool_calls", content=None, tool_calls=[CALL]),
    "a call whose arguments are an object": completion(
        content="", tool_calls=[{"function": {"name": "f", "arguments": json.loads(SAID)}}]
    ),
    "an old call of a function": completion(content=None, function_call={"name": "f", "arguments": SAID}),
    "reasoning_content alone": completion(content=None, reasoning_content=SAID),
    "reasoning alone": completion(content=" \n", reasoning=f"Well.\n{SAID}"),
    "thoughts beside it": completion(content=SAID, reasoning_content="{1} or {2}?", refusal=None),
    "a choice's text": {"choices": [{"finish_reason": "stop", "text": SAID}]},
    "no reason to end": {"choices": [{"message": {"content": SAID}}]},
}


@pytest.mark.parametrize("place", PLACES)
def test_an_answer_is_found_where_it_stands(place):
    found = interpreted(PLACES[place])
    assert found.answers[UNIT.key].value == {"fits": True, "reason": "seen"}
    assert not found.rest


def test_a_thought_that_was_cut_is_no_answer():
    for finish in ("length", "max_tokens", "MAX_TOKENS"):
        found = interpreted(completion(finish, content="", reasoning_content=SAID))
        assert not found.answers and found.rest == [UNIT] and found.after.cut


def test_two_calls_of_tools_are_no_answer():
    assert reply_text(completion(content=None, tool_calls=[CALL, CALL])) == ""


@pytest.mark.parametrize(
    "data",
    [
        completion(content=None, refusal="I would rather not."),
        completion(content=[{"type": "refusal", "refusal": "I would rather not."}]),
        completion("content_filter", content=""),
        completion("SAFETY", content=None),
        completion("refusal", content="I"),
    ],
)
def test_a_refusal_is_one_however_it_is_told(data):
    answer = interpreted(data).answers[UNIT.key]
    assert answer.terminal == Reason.REFUSED
    assert answer.detail in {"I would rather not.", "content filter"}


@pytest.mark.parametrize(
    "content", [7, True, [[]], [{"type": "text"}], [{"type": "text", "text": 5}], [None], {}, [{"text": {"value": 1}}]]
)
def test_a_content_of_another_kind_is_no_text(content):
    assert reply_text(completion(content=content)) == ""
