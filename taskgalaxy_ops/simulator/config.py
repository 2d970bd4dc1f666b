"""How the simulated models behave: how often wrong, how slow, how unreliable. Validated once, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.simulator import expansion

TEACHER = "sim-teacher"
JUDGES = {"sim-judge-a": "a", "sim-judge-b": "b", "sim-judge-c": "c"}  # model name: judge's letter
BLIND = "sim-blind"  # answers questions without their image
MODELS = (TEACHER, *JUDGES, BLIND)

Fault = Literal["rate_limit", "server_error", "hang", "malformed", "truncated", "duplicated", "reset", "half_body"]
FAULTS: tuple[Fault, ...] = get_args(Fault)  # a request has one at most

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeErrors(_Strict):
    """A judge's seeded errors, on top of what it cannot see: shares of the pairs that it found wrong and right."""

    false_accept: Share = 0.06
    false_reject: Share = 0.05


class Faults(_Strict):
    """Shares of requests that fail, and how. Drawn from (seed, request, attempt), except for refusals."""

    rate_limit: Share = Field(0.0, description="429 with Retry-After")
    server_error: Share = Field(0.0, description="500")
    hang: Share = Field(0.0, description="no reply for hang_seconds")
    malformed: Share = Field(0.0, description="a reply that is not what was asked for")
    truncated: Share = Field(0.0, description="cut off, finish_reason length")
    duplicated: Share = Field(0.0, description="a reply whose list holds every entry twice")
    reset: Share = Field(0.0, description="the connection is taken and reset, without a reply")
    half_body: Share = Field(0.0, description="a whole reply announced, half of it sent, the connection closed")
    refusal: Share = Field(0.0, description="of units, drawn from (seed, unit): a refused one is refused always")
    retry_after: Seconds = Field(1.0, description="seconds, sent with a 429")
    hang_seconds: Seconds = 600.0
    slow_start: Seconds = Field(0.0, description="how long it starts, from its start or from when this was last set")
    slow_start_latency: Seconds | None = Field(
        None, description="seconds that a reply takes longer meanwhile; None: there is none, but a 503"
    )

    @model_validator(mode="after")
    def _at_most_one(self) -> Faults:
        total = sum(getattr(self, kind) for kind in FAULTS)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of failing requests add up to {total:g}: at most 1")
        return self


class Limits(_Strict):
    """What one API key may do, enforced with 429. None: without limit."""

    concurrency: int | None = Field(None, ge=1, description="requests in flight")
    requests_per_second: Rate | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = Field(None, description="prompt and completion tokens together")
    by: Literal["key", "model"] = Field("key", description="key: its models share the limits; model: each has its own")
    headers: bool = Field(True, description="x-ratelimit-… on replies; false: the server alone knows its limits")
    retry_after: bool = Field(True, description="whether a 429 says when to come back")
    busy_seconds: Seconds = Field(1.0, description="the wait that a 429 for requests in flight tells")


class Batches(_Strict):
    """How /v1/batches behaves."""

    seconds: Seconds = Field(0.0, description="that a batch takes at least")
    failed: Share = Field(0.0, description="of a batch's requests, those that end in its error file")
    expired: Share = Field(0.0, description="of batches, those that expire before all is done")
    expired_done: Share = Field(0.5, description="of an expired batch's requests, those that were done")
    shuffled: bool = Field(True, description="whether output comes in another order than input")
    list_lag: Seconds = Field(0.0, description="until GET /v1/batches shows a new batch")
    lost_reply: Share = Field(0.0, description="of creations, those that are made, but reset instead of replied to")
    enqueued_requests: int | None = Field(
        None, ge=0, description="that may wait in all batches that have not ended; None: without limit"
    )
    enqueued_refusal: Literal["429", "400", "failed"] = Field(
        "failed", description="what a batch for which there is no room gets: a status, or that it ends so"
    )
    max_requests: int = Field(50_000, ge=1, description="of one batch")
    max_bytes: int = Field(200 * 1024 * 1024, ge=1, description="of one file")


class SimulatorConfig(_Strict):
    """All that decides what the simulated models do. Equal configurations give equal answers."""

    seed: int = 0
    wrong_share: Share = Field(0.15, description="of the pairs written, those planted with a wrong answer")
    judges: dict[str, JudgeErrors] = Field(
        default={
            "a": JudgeErrors(false_accept=0.06, false_reject=0.05),
            "b": JudgeErrors(false_accept=0.10, false_reject=0.03),
            "c": JudgeErrors(false_accept=0.03, false_reject=0.08),
        },
        description="by letter; rates are means over easy and hard pairs",
    )
    correlated: Share = Field(0.3, description="of the judges' errors, those drawn for all judges alike")
    hard_share: Share = Field(0.1, description="of pairs, those that are hard for every judge")
    hard_factor: float = Field(3.0, ge=1, le=100, description="how much more often judges err on hard pairs")
    guess_accept: Share = Field(0.0, description="of the pairs that a judge cannot tell about, those it approves")
    expand_duplicates: Share = expansion.DUPLICATES
    expand_near_duplicates: Share = expansion.NEAR_DUPLICATES
    expand_junk: Share = expansion.JUNK
    latency: Seconds = Field(0.0, description="seconds that a reply takes at least")
    latency_spread: Share = Field(0.0, description="a reply's latency is drawn from latency * (1 ± spread)")
    faults: Faults = Faults()
    limits: Limits = Limits()
    batches: Batches = Batches()
    api_key: str | None = Field(None, min_length=1, repr=False, description="None: any key will do")
    image_origin: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@\s]+$",
        description="where images may be fetched from by URL, e.g. http://127.0.0.1:8333; None: nowhere",
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="that compute; None: two more than there are cores, for some wait"
    )

    @model_validator(mode="after")
    def _fits(self) -> SimulatorConfig:
        if set(self.judges) != set(JUDGES.values()):
            raise ValueError(f"judges must be exactly {', '.join(JUDGES.values())}, not {', '.join(self.judges)}")
        if self.hard_share * self.hard_factor > 1:
            raise ValueError("hard_share * hard_factor must be at most 1: else no errors are left for easy pairs")
        if self.expand_duplicates + self.expand_near_duplicates + self.expand_junk > 1:
            raise ValueError("expand_duplicates, expand_near_duplicates and expand_junk add up to more than 1")
        return self


def parse_config(raw: Mapping[str, Any]) -> SimulatorConfig:
    """A configuration from plain values; left out fields take the defaults, so do left out judges.

    Raises SettingsError that names each wrong field.
    """
    values = dict(raw)
    if isinstance(values.get("judges"), Mapping):
        default = SimulatorConfig.model_fields["judges"].default
        values["judges"] = {**default, **values["judges"]}
    try:
        return SimulatorConfig.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"simulated models: {mistakes(error)}") from error


def load_config(path: Path | None, settings: Sequence[str] = ()) -> SimulatorConfig:
    """A configuration from a YAML file (None: the defaults), with single fields set over it, ``faults.reset=0.1``.

    Raises SettingsError.
    """
    raw: Any = {}
    if path is not None:
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"simulated models: {path} cannot be read as YAML ({error}).") from error
        if not isinstance(raw, dict):
            raise SettingsError(f"simulated models: {path} must be `field: value` lines.")
    for setting in settings:
        _set(raw, setting)
    return parse_config(raw)


def _set(raw: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    *path, last = name.split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise SettingsError(f"simulated models: {name}: {part} has no fields.")
    try:
        if not equals:
            raise ValueError("no `=`")
        raw[last] = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"simulated models: {setting!r} is not FIELD=VALUE ({error}).") from error


def mistakes(error: ValidationError) -> str:
    """A validation error in one line: each wrong field and what is wrong with it."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or '(whole)'}: {item['msg']}" for item in error.errors()
    )
