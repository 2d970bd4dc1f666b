"""The form of a request that a model takes: of structured output, and which parameters it does not know.

A model that refuses a parameter is met without it. That is transport: what a server made us leave out changes no unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from taskgalaxy_ops.settings import Model

# Of structured output; each is for models that do not take the one before. bounded: a schema that also says how many
# entries there are, and which values they may have.
MODES = ("bounded", "json_schema", "json_object", "text")
_ROOM_FIELDS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestForm:
    """``mode``: of structured output; "": the settings'. ``dropped``: parameters that are not sent.

    room_field: the name under which the reply's room is sent; "": the settings'.
    """

    mode: str = ""
    dropped: tuple[str, ...] = ()
    room_field: str = ""

    def mode_for(self, model: Model) -> str:
        """The form of structured output for a model: what it was found to take, at most what the settings ask for."""
        chosen = MODES[0] if model.structured == "json_schema" else model.structured
        return max(self.mode or chosen, chosen, key=MODES.index)

    def without(self, model: Model, parameter: str, sent: RequestForm) -> RequestForm | None:
        """This form without a parameter that the model refused when it was asked in the form ``sent``.

        None if there is nothing to leave out: the refusal is then about something else.
        """
        if parameter == "response_format":
            if (mode := sent.mode_for(model)) == MODES[-1]:
                return None
            simpler = MODES[
                MODES.index(mode) + 1
            ]  # this form may be simpler already, since replies arrive in any order
            return replace(self, mode=max(simpler, self.mode_for(model), key=MODES.index))
        if parameter in _ROOM_FIELDS:
            other = next(name for name in _ROOM_FIELDS if name != parameter)
            asked = sent.room_field or model.room_field
            return replace(self, room_field=other) if asked == parameter and not sent.room_field else None
        if parameter in sent.dropped or parameter not in optional(model):
            return None
        return replace(self, dropped=tuple(sorted({*self.dropped, parameter})))

    def to_text(self) -> str:
        """The form as the store keeps it, without its defaults."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> RequestForm:
        """The form that the store keeps; older versions kept the mode alone. The plain form for what is unknown."""
        if text in MODES:
            return cls(mode=text)
        try:
            kept = json.loads(text)
            mode, room = str(kept.get("mode", "")), str(kept.get("room_field", ""))
            dropped = tuple(str(name) for name in kept.get("dropped", ()))
        except (ValueError, AttributeError, TypeError):
            return cls()
        return cls(mode=mode if mode in MODES else "", dropped=dropped, room_field=room if room in _ROOM_FIELDS else "")


def optional(model: Model) -> Mapping[str, Any]:
    """The parameters of a request that a model may be met without, with their values."""
    named: dict[str, Any] = {
        "temperature": model.temperature,
        "top_p": model.top_p,
        "seed": model.seed,
        "stop": model.stop,
    }
    named |= {"reasoning_effort": model.reasoning_effort}
    return {name: value for name, value in named.items() if value is not None}
