"""The text of `doctor --encoder`: each way with what was measured, and what to set."""

from __future__ import annotations

import yaml

from taskgalaxy_ops.operations.encoder_trials import EncoderTrials, Trial
from taskgalaxy_ops.settings import EncoderSettings
from taskgalaxy_ops.text import shown

_HEADER = ("runtime", "precision", "decoding", "forward", "whole", "recall", "")


def tried(found: EncoderTrials, settings: EncoderSettings) -> list[str]:
    """A way a line, what is missing, and a recommendation in words and as settings."""
    pictures = f"{found.images} of the store's images" if found.stored else f"{found.images} pictures made for it"
    lines = [
        f"{shown(found.encoder)} on {found.cores} cores, {pictures}.",
        "forward: images a second by the network alone; whole: with reading, decoding and preparing them",
    ]
    if found.stored:
        lines.append(f"recall: of float32's 10 nearest of {found.task_types:,} task types, with full decoding")
    else:
        lines.append("The store has no image: whether a way finds what float32 finds is not known.")
    lines.append("")
    rows = [_HEADER, *(_row(each) for each in found.trials)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for why in dict.fromkeys(found.missing.values()):
        ways = ", ".join(way for way, reason in found.missing.items() if reason == why)
        lines.append(f"not tried: {ways}: {shown(why)}")
    return [*lines, "", *recommended(found, settings)]


def recommended(found: EncoderTrials, settings: EncoderSettings) -> list[str]:
    """What to set, and what that means for the store."""
    best, today = found.best, found.today
    if best == today:
        return ["Recommended: the settings as they are; nothing that finds the same task types is clearly quicker."]
    quicker = (
        f"{best.whole / today.whole:.1f} times the images a second of the settings" if today else "which work here"
    )
    recall = "" if best.recall is None else f", with a recall of {best.recall:.3f}"
    lines = [f"Recommended: {_name(best)}, {quicker}{recall}:", "", *_yaml(best, settings), ""]
    if found.stored:
        seconds = found.stored / best.whole
        lines.append(
            f"It is another encoder to the store: a run would embed all {found.stored:,} images anew (here about "
            f"{seconds:,.0f} s) beside what is there, and ask about matches that are new."
        )
    return lines


def _yaml(best: Trial, settings: EncoderSettings) -> list[str]:
    changes = {"runtime": best.runtime, "precision": best.precision, "decode": best.decode}
    chosen = settings.model_copy(update=changes).model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump({"encoder": chosen}, sort_keys=False, allow_unicode=True).splitlines()


def _row(each: Trial) -> tuple[str, ...]:
    forward = "" if each.forward is None else f"{each.forward:,.1f}"
    recall = "" if each.recall is None else f"{each.recall:.3f}"
    names = (each.runtime or "its own", each.precision or "float32", each.decode or "full")
    return *names, forward, f"{each.whole:,.1f}", recall, "<- settings" if each.settings else ""


def _name(each: Trial) -> str:
    runtime = f" by {each.runtime}" if each.runtime else ""
    return f"{each.precision or 'float32'}{runtime} with {each.decode or 'full'} decoding"
