"""The requests of a batch: how they are prepared, and how the journal keeps what a later worker needs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.http import Outcome
from taskgalaxy_ops.models.reply import RetryPlan
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.models.request_form import RequestForm
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.ledger_totals import Spent

# The settings of a model that collecting its batch needs. The journal keeps them, since the settings may change.
_OF_MODEL = {
    *("name", "base_url", "model", "api_key_env", "list_price", "simulated"),
    *("retries", "repairs", "concurrency", "images"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """A request that is about to be submitted in a batch."""

    name: str  # its id in the batch
    raw: bytes  # its line in the batch's file
    template: RequestTemplate
    units: Sequence[RequestItem]
    next: RetryPlan
    form: RequestForm
    mode: str
    estimated: pricing.Amount  # the most that it can use, by the model's rules
    most: pricing.Amount  # the same, raised if this model exceeded its estimates before

    @property
    def held(self) -> Spent:
        """What it holds of the budget."""
        return Spent(self.most.cost, 1, self.most.tokens)

    def to_json(self, block: str) -> dict[str, Any]:
        """The request as the journal's intent holds it; ``block``: the budget block that it holds."""
        return {
            "units": [unit.key for unit in self.units],
            "types": [unit.item["task_type"] for unit in self.units if "task_type" in unit.item],
            "image": self.units[0].image,
            **({"further_images": further} if (further := list(self.units[0].further)) else {}),
            **({"along": along} if (along := self._along()) else {}),
            "block": block,
            "reckoned": list(self.estimated),
            "held": list(self.most),
            "next": self.next.to_json(),
            "mode": self.mode,
            **({"left_out": list(self.form.dropped)} if self.form.dropped else {}),
        }

    def _along(self) -> Mapping[str, Any]:
        """The follow-up that it asks along: its name, and its units in the items' order; {}: none."""
        asked = self.template.follow_up
        return {} if asked is None else {"name": asked.name, "units": [unit.follow_up for unit in self.units]}


def units_of(request: Mapping[str, Any]) -> list[RequestItem]:
    """A request's items, as far as the journal's intent holds them."""
    items = [{"task_type": type_} for type_ in request["types"]] or [{} for _ in request["units"]]
    follow_ups = request.get("along", {}).get("units") or [""] * len(items)
    told = zip(request["units"], items, follow_ups, strict=True)
    further = tuple(request.get("further_images", ()))
    return [RequestItem(key, request["image"], item, follow_up, further) for key, item, follow_up in told]


def model_to_json(model: Model) -> dict[str, Any]:
    price = pricing.price_of(model) or pricing.FREE
    return {**model.model_dump(mode="json", include=_OF_MODEL), "price": price.model_dump(mode="json")}


def data_of(sent: Outcome) -> Mapping[str, Any]:
    return sent.data or {"error": {"message": sent.why}}
