"""A chat reply in the making: the answers computed, the fault worked in, and what the statistics keep of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from taskgalaxy_ops.simulator import answers as computing
from taskgalaxy_ops.simulator import faults as failing
from taskgalaxy_ops.simulator import wire
from taskgalaxy_ops.simulator.config import Fault, SimulatorConfig
from taskgalaxy_ops.simulator.limits import Refused
from taskgalaxy_ops.simulator.wire import Asked

Uncomputed = Literal["rate_limit", "server_error", "hang", "reset"]
UNCOMPUTED: tuple[Uncomputed, ...] = get_args(Uncomputed)  # faults for which nothing is computed


@dataclass(slots=True, kw_only=True)
class Reply:
    """What is sent, and what the statistics keep of it."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    fault: str | None = None
    answers: computing.Answers | None = None

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Of the prompt and of the completion; None where there is no reply that is paid for."""
        usage = self.body.get("usage")
        return (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None

    def record(self, asked: Asked) -> dict[str, Any]:
        """The statistics' record of this attempt."""
        record = {
            "at": round(time.time(), 3),
            "request": asked.key,
            "model": asked.model,
            "stage": asked.stage,
            "units": [unit.key for unit in asked.units],
            "answered": sorted(self.answered),
            "fault": self.fault,
            "tokens": self.tokens,
        }
        if self.answers is not None:
            kept = asdict(self.answers)
            record |= {name: kept[name] for name in ("pairs", "votes", "labels") if kept[name]}
        return record


def uncomputed(config: SimulatorConfig, fault: Uncomputed) -> Reply:
    """The reply that a fault leaves of a request that nothing is computed for."""
    if fault == "rate_limit":
        error = wire.error_body(
            "Rate limit reached (simulated). Try again later.", "rate_limit_error", "rate_limit_exceeded"
        )
        return Reply(status=429, body=error, headers={"Retry-After": f"{config.faults.retry_after:g}"}, fault=fault)
    return Reply(status=500, body=wire.error_body("The server had an error (simulated).", "server_error"), fault=fault)


def starting() -> Reply:
    """The reply of a server that is not ready yet."""
    return Reply(
        status=503, body=wire.error_body("The model is being loaded (simulated).", "server_error", "unavailable")
    )


def over_limit(model: str, refused: Refused) -> Reply:
    """The reply to a request over its key's limits."""
    message = (
        f"Rate limit reached for {model} (simulated): {refused.message}. Please try again in {refused.seconds:.3f}s."
    )
    return Reply(status=429, body=wire.error_body(message, refused.kind, "rate_limit_exceeded"))


def computed(config: SimulatorConfig, asked: Asked, attempt: int, fault: Fault | None) -> Reply:
    """The reply to a request; to be called in a thread. Raises WrongRequestError for a broken image."""
    images = computing.open_images(asked)
    tokens = asked.text_tokens
    for picture, image in zip(asked.images, images, strict=True):
        tokens += wire.image_tokens(*image.size, picture.detail)
    if refused := failing.refused(config.faults, config.seed, asked.units):
        return _refusal(asked, attempt, tokens, refused[1])
    answers = computing.answer(config, asked, images)
    answered = {unit.key for unit in asked.units}
    text, finish = wire.encode({wire.REPLIES[asked.stage]: answers.entries}), "stop"
    match fault:
        case "malformed":
            text, answered = failing.malformed(asked, answers.entries, config.seed, attempt)
        case "duplicated":
            text, answered = failing.duplicated(asked, answers.entries)
        case "truncated":
            text, finish = failing.cut(text, config.seed, asked.key, attempt), "length"
            answered = failing.whole_in(text, asked, answers.entries)
        case "half_body":
            answered = set()
    if asked.max_tokens is not None and wire.text_tokens(text) > asked.max_tokens:
        text, finish = text[: asked.max_tokens * wire.CHARACTERS_A_TOKEN], "length"
        answered &= failing.whole_in(text, asked, answers.entries)
    body = wire.completion(asked, attempt, text=text, finish=finish, prompt_tokens=tokens)
    return Reply(status=200, body=body, answered=answered, fault=fault, answers=answers)


def _refusal(asked: Asked, attempt: int, tokens: int, form: failing.RefusalForm) -> Reply:
    # Of several units it is not told which was meant; of one, the refusal is its answer.
    answered = {unit.key for unit in asked.units} if len(asked.units) == 1 else set()
    if form == "error":
        message = "Your request was rejected by the safety system (simulated)."
        body: Mapping[str, Any] = wire.error_body(message, "invalid_request_error", "content_policy_violation")
        return Reply(status=400, body=body, answered=answered, fault="refusal")
    if form == "content_filter":
        body = wire.completion(asked, attempt, text=None, finish="content_filter", prompt_tokens=tokens)
    else:
        sorry = "I'm sorry, I can't help with that (simulated)."
        body = wire.completion(asked, attempt, text=None, finish="stop", prompt_tokens=tokens, refusal=sorry)
    return Reply(status=200, body=body, answered=answered, fault="refusal")
