"""The card's sections on how the release was made, and on licences and attributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from taskgalaxy_ops.release.markdown import table, text
from taskgalaxy_ops.release.select import Selection

_CELL = 300  # characters of a setting in a cell


def making(plan: Selection) -> list[str]:
    made = plan.made_with
    models = [
        (role, text(model["name"]), text(model["model"]), text(model["revision"] or "–"), _yes(model["simulated"]))
        for role, model in [("teacher", made["teacher"]), *(("judge", judge) for judge in made["judges"])]
    ]
    return [
        "## How it was made",
        "",
        "After TaskGalaxy (ICLR 2025, arXiv 2502.09925): a taxonomy of task types; each image matched with the nearest "
        "ones by an encoder; a teacher keeps those that fit and writes a question and an answer for each; judges vote, "
        f"and {_rule(plan)} is a sample. The settings below say which samples were left out.",
        "",
        *table(("role", "name", "model", "revision", "simulated"), models),
        *_settings("encoder", made["encoder"]),
        *_settings("prompt (hash of its text)", made["prompts"]),
        *_settings("setting", {**made["rules"], **{f"release.{k}": v for k, v in made["release"].items()}}),
    ]


def _rule(plan: Selection) -> str:
    if (least := plan.inputs.rules.get("vote.rule.probability")) is None:
        return "a pair with a quorum of approvals"
    return (
        f"a pair that is right with a probability of {least:g} or more, by its votes and what was recorded of the "
        "judges,"
    )


def _settings(what: str, values: Mapping[str, Any]) -> list[str]:
    def shown(value: Any) -> str:
        return text(", ".join(map(str, value)) if isinstance(value, list | tuple) else value, _CELL)

    return table((what, "value"), [(text(name), shown(values[name])) for name in sorted(values)]) if values else []


def _yes(value: bool) -> str:
    return "**yes**" if value else "no"


def licences(plan: Selection) -> list[str]:
    return [
        "## Licences and attributions",
        "",
        "As the sources state them; `licences`, `attributions` and `origins` in the Parquet files say it for each "
        "image. Two sources may say different things of one image: both count.",
        "",
        *_terms(plan),
        *table(("licence", "images"), _counted({(name,): n for name, n in plan.claimed.shown_licences.items()})),
        *table(("source", "licence", "attribution", "images"), _counted(plan.claimed.credits)),
        *_context(plan),
    ]


def _terms(plan: Selection) -> list[str]:
    """Whose terms bind the teacher's words; a program that stands in for a model has none."""
    teacher = plan.inputs.teacher
    if teacher.simulated:
        return []
    return [
        f"Questions and answers are the words of {text(teacher.model)}: the terms of whoever offers that model say "
        "what they may be used for, such as training other models.",
        "",
    ]


def _context(plan: Selection) -> list[str]:
    """What the rows have of the images' context; nothing is said where they have none."""
    if not plan.settings.context:
        return []
    named = ", ".join(text(name) for name in plan.settings.context)
    (number,) = plan.rows.execute("SELECT count(context) FROM pictures").fetchone()
    return [
        f"`context` holds what the sources say of {number:,} images: {named}. It is text of the sources, by "
        "the first of them that has the field, and may be wrong; of special tokens the brackets are written ‹ › and "
        "⟦ ⟧.",
        "",
    ]


def _counted(numbers: Mapping[Any, int]) -> Iterable[tuple[str, ...]]:
    return [(*map(text, names), f"{numbers[names]:,}") for names in sorted(numbers)]
