"""The shape that the pure files of the asking stages share: templates, rules, and the work on one image shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import Model, Settings

Answers = Mapping[str, Answer]  # by unit
Tables = Mapping[str, list[Any]]  # rows, by table
Templates = Mapping[str, RequestTemplate]  # in order; by the question form or the judge where there are several


@dataclass(frozen=True, slots=True)
class Output:
    """What a stage made of its input: in = out + rejects + pending."""

    rows: Tables
    units_in: int
    units_out: int
    pending: int


@dataclass(frozen=True, slots=True)
class Work:
    """A stage's work on the rows of one image shard; each function follows from the answers alone."""

    needed: Callable[[Answers], list[tuple[RequestTemplate, list[RequestItem]]]]  # units without an answer, to be asked
    output: Callable[[Answers], Output]
    most: Callable[[Answers], int] | None = None  # units that may come to be needed; None: no more than are now


class AskingStage(Protocol):
    """What the file of an asking stage holds, which is called as its row in the table."""

    @staticmethod
    def templates(prompts: Mapping[str, str], settings: Settings) -> Templates:
        """How it asks; prompts: texts by name."""

    @staticmethod
    def rules(settings: Settings) -> dict[str, Any]:
        """What else of the settings its output hangs on."""

    @staticmethod
    def work(templates: Templates, rows: Sequence[Any], settings: Settings) -> Work:
        """The work on these rows of the stage before."""

    @staticmethod
    def reader(model: Model, form: str | None, request: str | None = None) -> RequestTemplate:
        """A template that reads replies which came before, whatever the prompt and the model.

        form: the question form that was asked for, None for one without a version. request: the kind of request, None
        for the one that the stage is called after."""


def pure(name: str) -> AskingStage:
    """The file of an asking stage."""
    return cast(AskingStage, import_module(f"{__package__}.{name}"))


def lacking(units: Iterable[RequestItem], answers: Answers) -> list[RequestItem]:
    """The units that have no answer."""
    return [unit for unit in units if unit.key not in answers]


def prompt_name(template: RequestTemplate) -> str:
    """What the settings call the prompt of a template."""
    if template.follow_up:
        return f"{template.stage} and {prompt_name(template.follow_up.template)}"
    request = str(template.head["request"])
    return f"{request}_{template.head['variant']}" if request == "write" else request
