"""Asks each model as a run would, once a role: with a picture, the run's prompts, form, temperature and room."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.generation.stages.asking import prompt_name, pure
from taskgalaxy_ops.inference.canary import CANARY_IMAGE, canary_picture, canary_unit
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.rendering import data_url, rendered_for
from taskgalaxy_ops.models.request import RequestTemplate
from taskgalaxy_ops.models.request_form import optional
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.settings import Model, Settings
from taskgalaxy_ops.storage import Store, keys, link
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import Caps, Ledger
from taskgalaxy_ops.taxonomy.expand import expand_template

_PATIENCE_SECONDS = 30.0
_LINK_SECONDS = 3600


@dataclass(slots=True, kw_only=True)
class ModelReport:
    """What a model said to the requests of its roles."""

    model: Model
    asked: list[str] = field(default_factory=list)  # what it answered, by prompt
    named: str = ""  # what it calls itself
    tokens: int = 0
    takes: str = ""  # the form that it takes, in words
    fault: str = ""  # why a run would fail; "": it works

    def words(self) -> str:
        """One line for people."""
        price = pricing.price_of(self.model) or pricing.FREE
        rates = f"${price.input:g} and ${price.output:g} a million tokens of input and output"
        return (
            f"{self.model.base_url} answers as {self.named or self.model.model} ({', '.join(self.asked)}; "
            f"{self.tokens} tokens); takes {self.takes}; {rates}"
        )


def ask_models(settings: Settings, store: Store | None) -> list[ModelReport]:
    """Ask teacher and judges. ``store``: where pictures lie that a model reads by URL; None: it is not reached.

    Budget and journal lie in a store of their own, so that this counts for no run.
    """
    prompts = load_prompts(settings.prompts, settings.write.variants, settings.further_prompts)
    templates = [expand_template(prompts["expand"], settings.teacher)]
    templates += [
        each.along(settings.write.variants[0]) if name == "filter" and settings.write.fused else each
        for name in ASKING
        for each in pure(name).templates(prompts, settings).values()
    ]
    if any(each.groups is not None for each in templates):  # judges will see them, too
        templates = [replace(each, groups={}) if each.head["request"] == "vote" else each for each in templates]
    reports = {model.name: ModelReport(model=model) for model in settings.models}
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_ask(templates, reports, FolderStore(Path(folder)), store))
    return list(reports.values())


async def _ask(
    templates: Sequence[RequestTemplate], reports: dict[str, ModelReport], own: Store, store: Store | None
) -> None:
    gateway = Gateway()
    try:
        for number, template in enumerate(templates):
            report = reports[template.model.name]
            if not report.fault:
                await _one(gateway, _brief(template), report, own, store, f"doctor-{number}")
        for report in reports.values():
            report.takes = _takes(gateway, report.model)
    finally:
        await gateway.aclose()


def _brief(template: RequestTemplate) -> RequestTemplate:
    """The template, of a model that is not waited for long."""
    patience = min(_PATIENCE_SECONDS, template.model.patience_seconds)
    return replace(template, model=template.model.model_copy(update={"patience_seconds": patience, "retries": 1}))


async def _one(
    gateway: Gateway, template: RequestTemplate, report: ModelReport, own: Store, store: Store | None, shard: str
) -> None:
    model, unit, journal = template.model, canary_unit(template), Journal(own, shard)
    if unit is None:  # a package's template that names no question
        return
    budget = ShardBudget(RunBudget(Ledger(own, Caps(None, None, None))), shard, 1)
    try:
        context = CallContext(journal, budget, lambda _: _picture(model, store), lambda: None)
        await gateway.ask(template, [unit], context)
    except ModelError as error:
        report.fault = str(error)
        return
    journal.flush()
    usage = gateway.usage
    answer = journal.answers.get(unit.key)
    for reply in journal.replies():
        told = pricing.usage_of(reply["raw"])
        report.tokens += told.get("prompt_tokens", 0) + told.get("completion_tokens", 0)
        report.named = str(reply["raw"].get("model") or report.named)
    if answer is not None and not answer.terminal:
        report.asked.append(prompt_name(template))
    else:
        why = usage.unavailable.get(model.name) or usage.gave_up.get(model.name)
        # The finding names the model: what the gateway says of it begins with the address.
        said = (why or "").removeprefix(f"model {model.name!r} at ").removeprefix(f"{model.name} at ")
        report.fault = said or f"{model.base_url}: no usable answer ({answer and answer.detail})"


def _picture(model: Model, store: Store | None) -> str:
    if model.images == "data":
        return data_url(rendered_for(canary_picture(), model))
    if store is None:
        raise ModelError(f"model {model.name!r} reads images by URL of the store, which is not reached.")
    key = keys.rendering(CANARY_IMAGE, "doctor")
    store.replace(key, rendered_for(canary_picture(), model))
    return link(store, key, seconds=_LINK_SECONDS, content_type="image/jpeg")


def _takes(gateway: Gateway, model: Model) -> str:
    form = gateway.attempts.forms.of(model)
    parts = ["images by URL" if model.images == "url" else "images", form.mode_for(model)]
    parts += [f"{name}" for name in optional(model) if name not in form.dropped]
    parts += [f"no {name} (left out)" for name in form.dropped]
    return ", ".join([*parts, form.room_field or model.room_field])
