"""Models in this process that answer by hash of what they are shown, and count every answer that they give.

They stand behind the real gateway and the real openai client, in place of the wire alone (wire.py). What a unit is, is
decided here from what arrives, not by the library's keys: a unit that is asked again by mistake is counted again, and
gets another answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import httpx2

from taskgalaxy_ops.models.request import CANARY_TASK_TYPE
from taskgalaxy_ops.settings import Model

REPAIRS = 1  # of every model here
TRIES = 3  # after which a unit that a healthy model fails at is given up: one, and two that a canary preceded
GARBAGE = "I like turtles."
MAX_TOKENS = 100  # of a first request; one that was cut is asked again with more
FUSED = "filter and write"  # the request that asks both
# By kind of request.
REPLIES = {
    **{"filter": "verdicts", "write": "pairs", "answer": "answers", "vote": "votes"},
    **{"blind": "answers", FUSED: "verdicts"},
}
ITEMS = {"filter": "task_types", "write": "task_types", "answer": "questions", "vote": "pairs", FUSED: "task_types"}
TAG = 12  # digits of an image's id, by which a question names it: who is shown the question alone can be told the image
SEVERAL = " and "  # between the images of a unit
STAGES = {"answer": "write", "blind": "vote"}  # of kinds of request that are not called after theirs


class Unit(NamedTuple):
    """All that a model is shown or told of the smallest thing asked."""

    model: str  # its name and its weights
    prompt: str
    image: str  # id and quality of rendering; of several, one after the other
    head: str  # JSON
    item: str  # JSON

    @property
    def request(self) -> dict[str, Any]:
        """What all items of its request share."""
        return json.loads(self.head)  # type: ignore[no-any-return]

    @property
    def told(self) -> dict[str, Any]:
        """What it alone was asked about."""
        return json.loads(self.item)  # type: ignore[no-any-return]

    @property
    def kind(self) -> str:
        return str(self.request["request"])

    @property
    def stage(self) -> str:
        return STAGES.get(self.kind, self.kind)

    @property
    def image_id(self) -> str:
        """The image, however it is rendered; of several the first."""
        return self.images[0]

    @property
    def images(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(each.partition(" ")[0] for each in self.image.split(SEVERAL))

    @property
    def name(self) -> str:
        """The model's name, without its weights."""
        return self.model.partition(" ")[0]


class Given(NamedTuple):
    """An answer as it was sent: an entry of a reply's list, or why there is none."""

    entry: Mapping[str, Any]
    terminal: str = ""  # "refused" or "malformed reply"


MUMBLED = Given({"fits": True, "reason": "PERHAPS", "read by": 2})  # "perhaps", as the second parser reads it


def plain(value: Mapping[str, Any]) -> str:
    """JSON, keys sorted."""
    return json.dumps(value, sort_keys=True)


def drawn(*parts: object) -> int:
    """A large number that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


class Models:
    """All the models of a history."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        """``urls``: what stands in a unit for each image's data URL."""
        self._urls = urls
        self._tagged = {shown[:TAG]: shown.partition(" ")[0] for shown in urls.values()}
        self.weights: dict[str, str] = {}  # by model; "" is what it began with
        self.away: dict[str, str] = {}  # by model: "nobody", "error" or "no key"
        self.parser = 1  # which of the library's reads the replies: an answer is kept as it was read
        self.canaries = 0
        self.unproven: list[Unit] = []  # that ended in the last reply by what may be the model's fault
        self.minded: set[str] = set()  # images: the provider refuses them, and does not say why
        self.broken: tuple[str, str] | None = None  # model and image: it fails at it each time
        self.failed: Counter[Unit] = Counter()  # how often it failed at a unit by itself, in this run
        self.bad: set[str] = set()  # models that answer nothing usable
        self.left: int | None = None  # requests that are still served, before all models are away
        self.received = 0  # requests that reached a model
        self.cost = 0  # nano-dollars
        self.delivered: Counter[Unit] = Counter()  # answers given
        self.step = 0  # of the history
        self.standing: dict[Unit, Given] = {}  # the last answer given, where nobody has forgotten it
        self.given_at: dict[Unit, int] = {}  # the step of each of these
        # What was first said to these in that step can be read by the filter's second parser alone.
        self.mumbled: dict[Unit, int] = {}
        self.forgets: Counter[Unit] = Counter()
        self.gone: set[str] = set()  # images: what is said about them is kept nowhere
        self.late: set[Unit] = set()  # what is said of these now counts for nothing

    def forget(self, units: Iterable[Unit]) -> None:
        """These answers do not stand any more: they may be asked for again, and are others then."""
        for unit in units:
            del self.standing[unit], self.given_at[unit]
            self.mumbled.pop(unit, None)
            self.forgets[unit] += 1

    def read_again(self) -> set[Unit]:
        """What could not be read is read by the second parser; the units that had a terminal answer until now."""
        read = {unit for unit in self.mumbled if unit not in self.standing or self.standing[unit].terminal}
        replaced = read & self.standing.keys()
        self.standing |= dict.fromkeys(read, MUMBLED)
        self.given_at |= {unit: self.mumbled[unit] for unit in read}
        return replaced

    def refusal(self, request: httpx2.Request, model: str | None = None) -> httpx2.Response | None:
        """Why nothing is served now, of a model or of none; None where it is. Raises where nobody is there."""
        why = "error" if self.left == 0 else self.away.get(model or "")
        if why == "nobody":
            raise httpx2.ConnectError("connection refused", request=request)
        return error(request, 500 if why == "error" else 401, why) if why else None

    def chat(self, request: httpx2.Request, body: Mapping[str, Any]) -> httpx2.Response:
        """One chat completion."""
        try:
            refusal = self.refusal(request, body["model"])
        except httpx2.ConnectError:
            self._unprove(body)
            raise
        self.received += 1
        if refusal is None and _is_canary(body):
            return self._canary(request, body)
        self._unprove(body if refusal else {})
        units = self.units_of(body)
        if refusal is None and units and self.broken in {(units[0].name, image) for image in units[0].images}:
            return self._broken(request, units)
        return refusal or self.reply(request, body, units)

    def _unprove(self, body: Mapping[str, Any]) -> None:
        """What ended units before a canary that is not served does not stand: it may be the model's fault."""
        for unit in self.unproven if body and _is_canary(body) else ():
            self.delivered[unit] -= 1
            del self.standing[unit], self.given_at[unit]
        self.unproven = []

    def _broken(self, request: httpx2.Request, units: Sequence[Unit]) -> httpx2.Response:
        """A failure at these units; the last of the tries ends the unit."""
        if self.left is not None:
            self.left -= 1
        if len(units) == 1:
            self.failed[units[0]] += 1
            if self.failed[units[0]] == TRIES:
                self.deliver(units[0], Given({}, "model fails on it"))
        return error(request, 500, "it fails at this")

    def _canary(self, request: httpx2.Request, body: Mapping[str, Any]) -> httpx2.Response:
        """A right answer about the plain picture, of a model that is well; it answers no unit."""
        if self.left is not None:
            self.left -= 1
        self.canaries += 1
        self.cost += 1000
        if body["model"] in self.bad:
            return self._completion(request, [_nothing(body)], GARBAGE, "stop")
        kind = next(kind for kind in REPLIES if f'"request": "{kind}"' in plain(body).replace("\\", ""))
        entry = {"index": 1, "fits": True, "vote": 1, "question": "What?", "answer": "White.", "reasoning": "It is."}
        entries = {REPLIES[kind]: ["White." if kind == "blind" else {**entry, "reason": "it is plain"}]}
        return self._completion(request, [_nothing(body)], json.dumps(entries), "stop")

    def units_of(self, body: Mapping[str, Any]) -> list[Unit]:
        """What a request asks for; nothing, where it is a canary."""
        return [unit for unit, _ in self.asked_by(body)]

    def asked_by(self, body: Mapping[str, Any]) -> list[tuple[Unit, Unit | None]]:
        """The units that a request asks for, and those that it asks along if these fit."""
        if _is_canary(body):
            return []
        parts = body["messages"][-1]["content"]
        text, images = parts[0]["text"], [part["image_url"]["url"] for part in parts if "image_url" in part]
        told, _, block = text.partition("\n\n```json\n")
        prompt = told.partition("\n\nReply with one JSON object")[0]  # how to reply is no part of what is asked
        block = json.loads(block.removesuffix("\n```"))
        model = named(body["model"], self.weights.get(body["model"], ""))
        if block["request"] == "blind":
            assert not images, "it was shown an image"
            question = block.pop("question")
            image = self._tagged[question.rstrip("?").rpartition(" ")[2]]
            return [(Unit(model, prompt, image, plain(block), plain({"question": question})), None)]
        items = block.pop(ITEMS[block["request"]])
        assert [item.pop("index") for item in items] == list(range(1, len(items) + 1))
        shown, kinds = SEVERAL.join(self._urls[image] for image in images), [(prompt, block)]
        assert len(images) == block.get("images", 1)
        if block["request"] == FUSED:
            _, _, both = prompt.partition("\n\nPart 1\n\n")
            filters, _, writes = both.partition("\n\nPart 2\n\n")
            alone = {name: value for name, value in block.items() if name not in {"variant", "language"}}
            kinds = [(filters, {**alone, "request": "filter"}), (writes, {**block, "request": "write"})]
        asked: list[tuple[Unit, Unit | None]] = []
        for item in items:
            along = len(kinds) > 1 and item.pop("part_2", True)
            first, *others = [Unit(model, told, shown, plain(head), plain(item)) for told, head in kinds]
            asked.append((first, others[0] if along else None))
        return asked

    def reply(self, request: httpx2.Request, body: Mapping[str, Any], units: Sequence[Unit]) -> httpx2.Response:
        """What a model says to a request."""
        if self.left is not None:
            self.left -= 1
        repaired = sum("text" in part for part in body["messages"][-1]["content"]) > 1
        tries = 1 if repaired or body["max_tokens"] > MAX_TOKENS else 0
        faults = {unit: _fault(unit, self.delivered[unit]) for unit in units}
        along = dict(self.asked_by(body))
        self.cost += 1000 * len(units)  # as many prompt tokens, at a dollar a million
        if units and units[0].name in self.bad:
            return self._completion(request, units, GARBAGE, "stop")
        if units and not self.minded.isdisjoint(units[0].images):
            if len(units) == 1:
                self.deliver(units[0], Given({"minded": True}, "refused"))
            self.cost -= 1000 * len(units)  # an error carries no usage
            return error(request, 400, "it cannot be done")
        if "refused" in faults.values():  # it does not say which one it minds
            as_error = bool(drawn("form", units[0]) % 2)
            if len(units) == 1:
                self.deliver(units[0], Given({"error": as_error}, "refused"))
            if as_error:
                self.cost -= 1000 * len(units)  # an error carries no usage
                return error(request, 400, "content_policy_violation")
            return self._completion(request, units, None, "stop", "I would rather not.")
        if "cut" in faults.values() and not tries:
            return self._completion(request, units, '{"verdicts": [{"ind', "length")
        entries: list[Any] = []
        for index, unit in enumerate(units, 1):
            if faults[unit] == "slow" and not tries:
                continue
            if faults[unit] == "malformed":
                entries.append({"index": index, "fits": "perhaps"})
                if unit.stage == "filter" and unit not in self.late:
                    self.mumbled.setdefault(unit, self.step)
                    if self.parser == 2:
                        self.deliver(unit, MUMBLED)
                        continue
                if tries == REPAIRS:
                    self.deliver(unit, Given({"index": index}, "malformed reply"))
                continue
            entry = answer(unit, self.delivered[unit])
            kept = _kept(entry)
            self.deliver(unit, Given({**kept, "read by": self.parser} if unit.stage == "filter" else kept))
            if (written := along[unit]) is not None and entry["fits"]:
                entry |= self._along(written)
            entries.append(entry["answer"] if unit.kind == "blind" else {"index": index, **entry})
        return self._completion(request, units, json.dumps({REPLIES[units[0].kind]: entries}), "stop")

    def _along(self, unit: Unit) -> dict[str, Any]:
        """What is said beside a verdict: sometimes nothing, or what has been said before and counts for nothing."""
        if _fault(unit, self.delivered[unit]):
            return {}
        entry = answer(unit, self.delivered[unit])
        if unit not in self.standing:
            self.deliver(unit, Given(_kept(entry)))
        return entry

    def deliver(self, unit: Unit, given: Given) -> None:
        """Note an answer, which stands unless it is late."""
        if unit in self.late:
            return
        self.delivered[unit] += 1
        self.standing[unit], self.given_at[unit] = given, self.step
        if given.terminal in {"refused", "malformed reply"}:
            self.unproven.append(unit)

    def _completion(
        self, request: httpx2.Request, units: Sequence[Unit], text: str | None, finish: str, refusal: str | None = None
    ) -> httpx2.Response:
        message = {"role": "assistant", "content": text, "refusal": refusal}
        body = {
            "id": "x",
            "object": "chat.completion",
            "model": units[0].name,
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": {"prompt_tokens": len(units), "completion_tokens": 0, "total_tokens": len(units)},
        }
        return httpx2.Response(200, json=body, request=request)


def _kept(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry as the library keeps it: a special token with other brackets."""
    return {**entry, "answer": "‹image›"} if entry.get("answer") == "<image>" else entry


def _nothing(body: Mapping[str, Any]) -> Unit:
    """In place of a unit, of a reply that answers none."""
    return Unit(body["model"], "", "", "{}", "{}")


def _is_canary(body: Mapping[str, Any]) -> bool:
    return any(CANARY_TASK_TYPE in part.get("text", "") for part in body["messages"][-1]["content"])


def error(request: httpx2.Request, status: int, code: str) -> httpx2.Response:
    """A reply of another status than 200."""
    return httpx2.Response(status, json={"error": {"message": code, "code": code}}, request=request)


def named(model: str, weights: str | None) -> str:
    """A model as it stands in a unit."""
    return f"{model} {weights or ''}".strip()


def _fault(unit: Unit, times: int) -> str:
    number = drawn("fault", unit, times) % 100
    for share, fault in ((4, "refused"), (8, "malformed"), (14, "slow"), (18, "cut")):
        if number < share:
            return fault
    return ""


def answer(unit: Unit, times: int) -> dict[str, Any]:
    """What a model says to a unit that it has answered so many ``times`` before.

    Most of it does not depend on the prompt's words and the weights, so that another prompt changes some answers alone.
    """
    mine = drawn(unit, times)
    number = mine if mine % 3 == 0 else drawn(unit.name, unit.image, unit.head, unit.item, times)
    if unit.stage == "filter":
        return {"fits": number % 8 < 7, "reason": f"for reason {number % 5}"}
    if unit.kind == "vote":
        return {"vote": int(number % 8 < 6), "reason": f"for reason {number % 5}"}
    if unit.kind == "blind":
        return {"answer": f"It is {number // 7 % 3}."}
    question, text = f"What is number {number % 7} of {unit.image[:TAG]}?", f"It is {number // 7 % 3}."
    if unit.request.get("language") == "German":
        question, text = f"Was ist die Nummer {number % 7} von {unit.image[:TAG]}?", f"Es ist die {number // 7 % 3}."
    odd = number // 21 % 24
    if odd == 0:
        question = text = ""
    elif odd == 1:
        text = ""
    elif odd == 2:
        text = "<image>"
    thinks = unit.request["variant"] == "chain_of_thought"
    reasoning = f"Since {number // 400 % 2}." if thinks else ""
    if unit.kind == "answer":
        return {"answer": text, **({"reasoning": reasoning} if thinks else {})}
    return {"question": question, "answer": text, "reasoning": reasoning}


def chat_model(name: str, **fields: Any) -> dict[str, Any]:
    """A model of this module, as the settings name it; ``revision``, where it is given, names its weights."""
    return {
        "name": name,
        "model": name,
        "base_url": "http://models.test/v1",
        "simulated": True,
        "price": {"input": 1, "output": 1},
        "repairs": REPAIRS,
        "max_tokens": MAX_TOKENS,
        "retries": 0,
        "patience_seconds": 0,
        "mode": "chat",
        "concurrency": 1,  # and so everything comes in one order
        **fields,
    }


def rendered(images: Sequence[str], model: Model) -> str:
    """Images as they stand in a unit."""
    return SEVERAL.join(f"{image} at {model.image_quality}" for image in images)
