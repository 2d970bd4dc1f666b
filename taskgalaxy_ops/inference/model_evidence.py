"""What this process saw of a model: whether a failure is the request's or the model's follows from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from taskgalaxy_ops.inference.canary import CANARY_IMAGE

_WINDOW = 50  # latest replies, and latest attempts
_ENOUGH = 20  # replies from which their share alone tells whether a model is to be believed
_FEW = 16  # units that may be lost before many were answered
_FLAPPING = 0.25  # share of failed attempts of other requests, above which the model's server is the problem


@dataclass(slots=True, kw_only=True)
class Evidence:
    """The latest replies and attempts of one model."""

    good: deque[bool] = field(default_factory=lambda: deque(maxlen=_WINDOW))  # replies: was an answer in it
    attempts: deque[tuple[str, bool]] = field(default_factory=lambda: deque(maxlen=_WINDOW))  # about, served
    answered: int = 0  # units
    lost: int = 0  # units that ended with a terminal answer for a reason of the model's
    takes_form: bool = False  # it served a canary
    takes_groups: bool = False  # it answered about several images, or served a canary of two
    answers_plainly: bool = False  # it answered a canary in form
    example: str = ""  # the text of the latest unusable reply

    def replied(self, answered: int, text: str) -> None:
        """Count a reply that held ``answered`` usable answers."""
        self.good.append(answered > 0)
        self.answered += answered
        if not answered:
            self.example = text

    @property
    def served(self) -> bool:
        """Whether the model gave a usable answer to any of its latest requests."""
        return any(self.good)

    @property
    def mostly_good(self) -> bool:
        """Whether at least half of the latest replies were usable, and at least one."""
        return self.served and 2 * sum(self.good) >= len(self.good)

    @property
    def mostly_bad(self) -> bool:
        """Whether so many replies were seen, and more than half of them unusable, that the model is the problem."""
        return len(self.good) >= _ENOUGH and not self.mostly_good

    def may_lose(self, units: int) -> bool:
        """Whether so many more units may end without an answer: a few, or no more than were answered."""
        return self.lost == 0 or self.lost + units <= max(_FEW, self.answered)

    def flapping(self, about: str) -> bool:
        """Whether requests about other images fail so often, too, that a failure says nothing about this one."""
        # Canaries go first and are asked when others fail: that they are served says nothing of how often others are.
        others = [served for image, served in self.attempts if image not in {about, CANARY_IMAGE}]
        return bool(others) and others.count(False) > _FLAPPING * len(others)

    def unusable(self) -> str:
        """A sentence on the share of unusable replies, with one of them."""
        bad = len(self.good) - sum(self.good)
        shown = " ".join(self.example.split())[:200] or "an empty text"
        return f"{bad} of its last {len(self.good)} replies hold no usable answer, such as: {shown!r}"
