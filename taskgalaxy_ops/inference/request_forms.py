"""The request forms that models were found to take, shared by all workers of a store."""

from __future__ import annotations

import asyncio
from functools import cache

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.models.request_form import RequestForm
from taskgalaxy_ops.settings import Model

Identity = tuple[str, ...]


def identity(model: Model) -> Identity:
    """What a provider knows a model by: models that agree in it share one rate limit and one form."""
    return model.base_url, model.model, model.api_key_env


@cache
def group(one: Identity) -> str:
    """The hash of a model's identity (32 hex digits): the group under which workers share its limit."""
    return fingerprint("limit", list(one))[:32]


class RequestForms:
    """The forms by model. For one event loop; ``shares``: None if they are not shared."""

    def __init__(self, shares: Shares | None) -> None:
        self._shares = shares
        self._forms: dict[Identity, RequestForm] = {}
        self._recalling: dict[Identity, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    async def aclose(self) -> None:
        """Wait until what was found out is shared."""
        await asyncio.gather(*self._telling)

    async def recall(self, model: Model) -> None:
        """Read the form that another worker found, once."""
        if self._shares and model.weights is None:
            one = identity(model)
            if one not in self._recalling:
                self._recalling[one] = asyncio.create_task(self._recall(one, self._shares))
            await asyncio.shield(self._recalling[one])

    async def _recall(self, one: Identity, shares: Shares) -> None:
        if text := await shares.form(group(one)):
            self._forms.setdefault(one, RequestForm.from_text(text))

    def of(self, model: Model) -> RequestForm:
        """The form that the model takes, as far as is known."""
        return self._forms.get(identity(model), RequestForm())

    def simplify(self, model: Model, parameter: str, sent: RequestForm) -> RequestForm | None:
        """Leave a parameter out for this model from now on, which refused it in the form ``sent``.

        None if there is nothing to leave out: the refusal is about something else.
        """
        before = self.of(model)
        form = before.without(model, parameter, sent)
        if form is not None and form != before:
            self._forms[identity(model)] = form
            if self._shares:
                self._telling.add(asyncio.create_task(self._tell(identity(model), self._shares)))
        return form

    async def _tell(self, one: Identity, shares: Shares) -> None:
        async with self._one_at_a_time:  # else an older form might be written last
            await shares.tell_form(group(one), self._forms[one].to_text())
