"""The text of `explain`. Control characters in models' and sources' text are not printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.records import images_in, turns_in
from taskgalaxy_ops.text import shown


def explained(found: Mapping[str, Any]) -> list[str]:
    """The lines of an explanation of an image, a sample, a task type or a rejected file. found: `explain`'s result."""
    if "rejected" in found and "task_type" not in found:
        return [
            f"{shown(r['source'])}: {r['file']!r} was rejected: {r['reason']} ({shown(r['detail'])})"
            for r in found["rejected"]
        ]
    if "task_type" in found:
        return _task_type(found)
    image = found["image"]
    lines = [f"image {image['image']}: {image['width']} x {image['height']} {image['format']}, {image['size']:,} bytes"]
    for claim in found["claims"]:
        told = [f"{name} {shown(claim[name])}" for name in ("origin", "licence", "attribution") if claim[name]]
        lines.append(f"  in {shown(claim['source'])}: {claim['file']!r}" + (f" ({', '.join(told)})" if told else ""))
        lines += [f"    {shown(name)}: {shown(text)}" for name, text in (claim.get("context") or {}).items()]
    if not found["claims"]:
        lines.append("  no source claims it any more: it is part of nothing that is made from now on")
    if former := found.get("former"):
        why = "; ".join(former["changed"]) or "not recorded"
        lines += [
            f"  pair {former['pair'][:12]} ({former['task_type']}, {former['variant']}) is of a former stage output:",
            f"    changed since: {shown(why)}",
            f"    Q {shown(former['question'])}",
            f"    A {shown(former['answer'])}",
            *_further(former, 4),
        ]
    for each in found["matches"]:
        lines += _match(each)
    for pair in found.get("with_others", ()):
        lines.append(
            f"  shown with image {pair['image']}, first of {1 + len(images_in(pair['further_images']))}: pair "
            f"{pair['pair'][:12]} ({pair['task_type']})"
        )
    return lines


def _match(each: Mapping[str, Any]) -> list[str]:
    lines = [f"{each['rank']:>4}. {each['task_type']} (similarity {each['similarity']:.3f})"]
    if each["fits"] is not None:
        lines += [f"      fits: {shown(each['fits'])}", *_by(each["filtered_by"], 8)]
    for reject in each["rejected"]:
        variant = f" ({reject['variant']})" if reject["variant"] else ""
        lines.append(f"      OUT at {reject['stage']}{variant}: {reject['reason']} ({shown(reject['detail'])})")
        lines += _by(reject["by"] or (each["filtered_by"] if reject["stage"] == "filter" else None), 8)
    if each.get("not_tried"):
        lines.append(
            "      not tried: the task type needs no more images than come before this one, or may try no more"
        )
    lines += [f"      PENDING: {stage} has not been answered" for stage in each["waits_for"]]
    for pair in each["pairs"]:
        lines += _pair(pair)
    return lines


def _pair(pair: Mapping[str, Any]) -> list[str]:
    fate = {True: "SAMPLE", False: f"OUT at vote ({pair['reason']}):", None: "PENDING, votes are missing:"}[
        pair["accepted"]
    ]
    lines = [f"      {fate} pair {pair['pair'][:12]} ({pair['variant']})"]
    if further := images_in(pair["further_images"]):
        lines.append(f"        with images {', '.join(further)}")
    lines.append(f"        Q {shown(pair['question'])}")
    if pair["reasoning"]:
        lines.append(f"        R {shown(pair['reasoning'])}")
    lines += [f"        A {shown(pair['answer'])}", *_further(pair, 8), *_by(pair["written_by"], 10)]
    for vote in pair["votes"]:
        value = "abstains" if vote["vote"] is None else vote["vote"]
        audit = " (audit: counts for statistics alone)" if vote["audit"] else ""
        lines += [f"        {shown(vote['judge'])}: {value}, {shown(vote['reason'])}{audit}", *_by(vote["by"], 10)]
    if "decided_by" in pair:
        lines.append(f"        {pair['decided_by']}")
    if "blind" in pair:
        lines.append(f"        {'answered' if pair['blind'] else 'not answered'} without the image")
    lines += _people(pair, 8)
    if pair["accepted"]:
        lines.append(f"        released in {', '.join(pair['releases']) or 'no release'}")
        if pair["not_released"]:
            lines.append(f"        not in the latest: {shown(pair['not_released'])}")
    return lines


def _further(pair: Mapping[str, Any], indent: int) -> list[str]:
    """The turns of a conversation after its first."""
    turns = turns_in(pair["further_turns"])
    return [f"{'':{indent}}{mark} {shown(text)}" for turn in turns for mark, text in zip("QA", turn, strict=True)]


def _people(pair: Mapping[str, Any], indent: int) -> list[str]:
    lines = []
    for review in pair.get("people", ()):
        reason = f", {shown(review['reason'])}" if review["reason"] else ""
        lines.append(f"{'':{indent}}person {shown(review['reviewer'])}, {review['at']}: {review['verdict']}{reason}")
        if review["becomes"]:
            released = ", ".join(review["releases"]) or "no release"
            judged = {True: "accepted by judges, ", False: "rejected by judges, "}.get(review.get("accepted"), "")
            told = f"corrected: A {shown(review['answer'])} (pair {review['becomes'][:12]}, {judged}in {released})"
            lines += [f"{'':{indent}}  {told}", *_people(review, indent + 4)]
    if pair.get("vetoed"):
        lines.append(f"{'':{indent}}most of these people find it wrong: the next release is without it")
    return lines


def _by(by: Mapping[str, Any] | None, indent: int) -> list[str]:
    if by is None:
        return []
    model = shown(by["model"]) + (f" revision {shown(by['revision'])}" if by["revision"] else "")
    shared = f" for {by['units']} units" if by["units"] > 1 else ""
    tries = f", {by['attempts']} attempts" if by["attempts"] > 1 else ""
    prompt, request = f"prompt {by['prompt']} {by['prompt_hash'][:8]}", f"request {shown(by['request'] or '-')}"
    along = f", in the {by['asked_along_with']}'s" if "asked_along_with" in by else ""
    taken = f"{by['at']}, {by['seconds']:.1f} s{tries}, {by['tokens']:,} tokens, ${by['cost']:.4f}{shared}"
    return [f"{'':{indent}}by {model}, {prompt}, {request}{along}, {taken}"]


def _task_type(found: Mapping[str, Any]) -> list[str]:
    lines = [f"task type {shown(found['task_type'])}"]
    if "successor" in found:
        lines.append(f"  it became {shown(found['successor'])}")
    if "asked_as" in found:
        lines.append(f"  models are asked about it as {shown(found['asked_as'])}")
    for each in found["history"]:
        origin = f", origin {each['origin']}" if "origin" in each else ""
        lines.append(f"  version {each['version']} ({shown(each['by'])}): {each['what']}{origin}")
    if (about := found["history"][-1].get("about")) is not None:
        lines.append(f"  {shown(about)}")
    lines.append(
        f"  matched to {found['matched']:,} images, fits {found['fitting']:,}; {found['written']:,} pairs, "
        f"{found['accepted']:,} accepted"
    )
    lines += [f"  {count:>9,} out at {reason}" for reason, count in found["rejected"].items()]
    if target := found.get("target"):
        lines.append(
            f"  {target['standing']}: {target['samples']:,} samples of {target['of']:,}, {target['tries']:,} of "
            f"{target['candidates']:,} images tried, {target['most_tries']:,} at most"
        )
    if found["unfinished_shards"]:
        lines.append(f"  {found['unfinished_shards']:,} shards are not finished: what is missing there is not counted")
    lines += [f"  {name}: {count:,} samples" for name, count in found["releases"].items()] or ["  in no release"]
    return lines
