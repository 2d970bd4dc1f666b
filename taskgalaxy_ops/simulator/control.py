"""Changing a server while it runs: what ``/control`` takes."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from taskgalaxy_ops.simulator import wire
from taskgalaxy_ops.simulator.config import SimulatorConfig, mistakes
from taskgalaxy_ops.simulator.wire import WrongRequestError

_CONTROLLED = ("latency", "latency_spread", "faults", "limits", "batches")


def shown(config: SimulatorConfig) -> dict[str, Any]:
    """What may be changed, as it is."""
    return config.model_dump(include=set(_CONTROLLED))


def changed(config: SimulatorConfig, raw: bytes) -> tuple[SimulatorConfig, set[str]]:
    """The configuration with a request's changes, and which fields they name. Raises WrongRequestError."""
    changes = wire.json_object(raw)
    if unknown := set(changes) - set(_CONTROLLED):
        raise WrongRequestError(400, f"cannot change {', '.join(sorted(unknown))}; only {', '.join(_CONTROLLED)}.")
    known = config.model_dump()
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(known[name], dict):
            changes[name] = {**known[name], **value}
    try:
        return SimulatorConfig.model_validate({**known, **changes}), set(changes)
    except ValidationError as error:
        raise WrongRequestError(400, mistakes(error)) from error
