"""The doctor asks a model as a run does: through the same gateway, in the same form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from serving import Quiet, served

from taskgalaxy_ops.operations import doctor
from taskgalaxy_ops.settings import Settings, parse_settings

USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
ENTRIES = {
    "expand": {"children": ["a", "b", "c"]},
    "filter": {"verdicts": [{"index": 1, "fits": True, "reason": "it is"}]},
    "write": {"pairs": [{"index": 1, "question": "What?", "answer": "That.", "reasoning": "so"}]},
    "vote": {"votes": [{"index": 1, "vote": 1, "reason": "so"}]},
}


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """A right reply to a request of a run."""
    text = body["messages"][-1]["content"][0]["text"]
    stage = json.loads(text.split("```json\n")[1].split("\n```")[0])["request"]
    message = {"role": "assistant", "content": json.dumps(ENTRIES[stage.partition(" ")[0]])}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {"model": "m-1", "choices": choices, "usage": USAGE}


class _Model(Quiet):
    """A model that takes no response_format, as many servers do not."""

    asked: list[dict[str, Any]]
    knows_form = True

    def handle_it(self) -> None:
        body = json.loads(self.body())
        self.asked.append(body)
        if "response_format" in body and not self.knows_form:
            self.answer(400, json.dumps({"error": {"message": "response_format is not supported"}}).encode())
        elif body["model"] == "none":
            self.answer(404, json.dumps({"error": {"message": "no such model"}}).encode())
        else:
            self.answer(200, json.dumps(reply(body)).encode())


def _settings(url: str, **model: Any) -> Settings:
    one = {"name": "t", "model": "m", "base_url": url, "simulated": True, "temperature": 0.5, **model}
    return parse_settings({"teacher": one, "judges": [one], "vote": {"quorum": 1}})


@pytest.mark.parametrize("knows_form", [True, False])
def test_the_doctor_asks_in_the_form_of_a_run(knows_form: bool) -> None:
    handler = type("Handler", (_Model,), {"asked": [], "knows_form": knows_form})
    with served(handler) as url:
        (found, *_) = doctor.models(_settings(url, room_field="max_completion_tokens"))
    assert found.fine, found.detail
    assert found.detail.startswith(
        f"{url} answers as m-1 (expand, filter, write_plain, vote; 40 tokens); takes images, "
    )
    assert ("bounded" in found.detail, "text" in found.detail) == (knows_form, not knows_form)
    forms = [body.get("response_format", {}).get("type") for body in handler.asked]
    assert forms == (4 * ["json_schema"] if knows_form else ["json_schema", "json_schema", "json_object", *4 * [None]])
    for body in handler.asked:
        assert (body["temperature"], body["max_completion_tokens"]) == (0.5, 2000), "as a run asks"
    shown = [any(part["type"] == "image_url" for part in body["messages"][-1]["content"]) for body in handler.asked]
    assert shown[-3:] == 3 * [True]


def test_the_doctor_asks_for_verdict_and_question_at_once_where_a_run_does() -> None:
    with served(type("Handler", (_Model,), {"asked": []})) as url:
        settings = _settings(url)
        fused = settings.write.model_copy(update={"fused": True})
        (found, *_) = doctor.models(settings.model_copy(update={"write": fused}))
    assert "(expand, filter and write_plain, write_plain, vote; 40 tokens)" in found.detail


def test_a_model_that_takes_no_picture_is_not_green() -> None:
    class Blind(_Model):
        def handle_it(self) -> None:
            body = json.loads(self.body())
            if any(part["type"] == "image_url" for part in body["messages"][-1]["content"]):
                self.answer(400, b'{"error": {"message": "At most 0 image(s) may be provided in one prompt."}}')
            else:
                self.answer(200, json.dumps(reply(body)).encode())

    with served(Blind) as url:
        (found, *_) = doctor.models(_settings(url))
    assert not found.fine and "At most 0 image(s)" in found.detail


def test_the_doctor_says_what_a_run_would_say(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = type("Handler", (_Model,), {"asked": []})
    with served(handler) as url:
        (found, *_) = doctor.models(_settings(url, model="none"))
        assert not found.fine
        assert "404, no such model. Check base_url, model ('none')" in found.detail
        monkeypatch.delenv("OF_TESTS", raising=False)
        priced = {"input": 1, "output": 2}
        (found, *_) = doctor.models(_settings(url, simulated=False, api_key_env="OF_TESTS", price=priced))
        assert not found.fine
        assert "OF_TESTS holds no key" in found.detail
    assert len(handler.asked) == 1
