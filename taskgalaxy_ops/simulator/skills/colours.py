"""Skills for the colours of an image, where they are clear-cut."""

from __future__ import annotations

import numpy as np

from taskgalaxy_ops.simulator.perception import UNCLEAR, Scene, colour_name
from taskgalaxy_ops.simulator.skills.base import Asked, Found, asked, many, need, one, skill

# Hues (degrees) in which a colour might be seen at all, much wider than where its name is sure.
_WIDE = {"red": (335, 25), "yellow": (35, 80), "green": (65, 185), "blue": (180, 270), "purple": (240, 335)}


def _ranked(scene: Scene) -> tuple[list[tuple[str, float]], float]:
    need(scene.graphic or not scene.grey, "a picture in shades of grey")
    return list(scene.shares.items()), float((scene.names == UNCLEAR).mean())


def _per_cent(share: float) -> str:
    return f"about {round(100 * share)} %"


def _others(*known: str) -> list[str]:
    return [c for c in ("red", "green", "blue", "yellow", "purple", "orange", "black", "white") if c not in known]


@skill("colour~main colours~dominant colour identification")
def dominant(scene: Scene) -> Found:
    ranked, unclear = _ranked(scene)
    need(ranked and ranked[0][1] > 0.45 and unclear < 0.35, "no single clear colour covers most of the image")
    need(len(ranked) < 2 or ranked[1][1] < 0.5 * ranked[0][1], "two colours cover similar areas")
    colour, share = ranked[0]
    rest = [c for c, _ in ranked[1:3]]
    why = (
        f"Counting pixels by colour, {colour} covers {_per_cent(share)} of the image. No other colour comes near that."
    )
    return one(f"{colour} covers most of the image", colour, rest or _others(colour), why)


@skill("colour~main colours~background colour identification")
def background(scene: Scene) -> Found:
    pixels = scene.small
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    ground = np.median(edge, axis=0)
    need((np.abs(edge - ground).max(axis=1) < 20).mean() > 0.95, "the image has no plain background")
    same = float((np.abs(pixels - ground).max(axis=2) < 28).mean())
    need(0.35 < same < 0.99, "no plain background behind something else")
    colour = colour_name(ground)
    need(colour, "the background's colour has no clear name")
    why = (
        f"Along the whole border of the image the pixels are {colour}. The same colour lies behind everything else and "
        f"covers {_per_cent(same)} of the image."
    )
    return one(f"a plain {colour} background", str(colour), _others(str(colour)), why)


@skill("colour~main colours~second most common colour")
def second(scene: Scene) -> Found:
    ranked, unclear = _ranked(scene)
    need(len(ranked) > 1 and ranked[1][1] > 0.08, "no second colour covers a fair area")
    (first, most), (colour, share) = ranked[:2]
    third = ranked[2][1] if len(ranked) > 2 else 0.0
    need(third + unclear < 0.7 * share and share < 0.75 * most, "the order of the colours is not clear")
    wrong = [first, *(c for c, _ in ranked[2:3])]
    why = (
        f"By area, {first} comes first with {_per_cent(most)} of the pixels. After it comes {colour} with "
        f"{_per_cent(share)}."
    )
    return one(f"mostly {first}, then {colour}", colour, wrong, why)


@skill("colour~main colours~colour presence check")
def presence(scene: Scene) -> Found:
    questions: list[Asked] = []
    hue, saturation, value = (scene.hsv[..., i] for i in range(3))
    coloured = (saturation > 0.14) & (value > 0.14)
    for colour, (low, high) in _WIDE.items():
        share = scene.shares.get(colour, 0.0)
        inside = (hue > low) & (hue < high) if low < high else (hue > low) | (hue < high)
        perhaps = float((coloured & inside).mean())
        if share > 0.03:
            why = (
                f"Looking for {colour}, {_per_cent(share)} of the pixels are clearly of that colour. "
                "So the answer is yes."
            )
            questions.append(asked("Yes", ("No",), why, colour=colour))
        elif perhaps < 0.0005:
            why = f"Looking for {colour}, hardly any pixel has a hue near it. So the answer is no."
            questions.append(asked("No", ("Yes",), why, colour=colour))
    need(any(q.answer == "Yes" for q in questions), "no colour stands out clearly")
    names = ", ".join(q.params["colour"] for q in questions if q.answer == "Yes")
    return many(f"clear areas of {names}", questions)


@skill("colour~main colours~colour share estimation")
def share_of(scene: Scene) -> Found:
    ranked, unclear = _ranked(scene)
    need(unclear < 0.1, "many pixels have no clear colour")
    questions = []
    for colour, share in ranked:
        if colour != "grey" and 0.15 < share + unclear / 2 < 0.92:
            near = 5 * round(20 * (share + unclear / 3))
            wrong = [f"about {n} %" for n in (near - 40, near - 30, near + 30, near + 40) if 3 < n < 98]
            why = f"Counting pixels, {_per_cent(share)} are {colour}. Rounded to steps of five, that is {near} %."
            questions.append(asked(f"about {near} %", wrong, why, colour=colour))
    need(questions, "one colour fills nearly all of the image")
    return many("areas of clear colours", questions)


@skill("colour~colour properties~warm or cool palette")
def palette(scene: Scene) -> Found:
    hue, saturation, value = (scene.hsv[..., i] for i in range(3))
    vivid = (saturation > 0.25) & (value > 0.25)
    need(vivid.mean() > 0.25, "too little of the image is clearly coloured")
    warm = float(((hue < 65) | (hue > 335))[vivid].mean())
    cool = float(((hue > 110) & (hue < 280))[vivid].mean())
    need(max(warm, cool) > 0.85, "warm and cool colours are mixed")
    answer = "warm" if warm > cool else "cool"
    kind = "reds, oranges and yellows" if answer == "warm" else "greens, blues and violets"
    why = f"Of the clearly coloured pixels, {_per_cent(max(warm, cool))} are {kind}. So the palette is mostly {answer}."
    return one(f"mostly {answer} colours", answer, ("warm", "cool"), why)


@skill("colour~colour properties~greyscale or colour")
def greyscale(scene: Scene) -> Found:
    _, saturation, value = (scene.hsv[..., i] for i in range(3))
    coloured = float(((saturation > 0.25) & (value > 0.25)).mean())
    need(scene.grey or coloured > 0.1, "there is too little colour to be sure")
    need(len(np.unique(scene.light)) > 24, "the image has too few tones")
    answer = "in shades of grey" if scene.grey else "in colour"
    why = (
        "Red, green and blue are equal in practically all pixels. So there are only shades of grey."
        if scene.grey
        else f"{_per_cent(coloured).capitalize()} of the pixels are clearly coloured. So it is a colour image."
    )
    return one(f"an image {answer}", answer, ("in colour", "in shades of grey"), why)


@skill("colour~colour properties~saturation level")
def saturation_level(scene: Scene) -> Found:
    need(not scene.graphic and len(scene.segments) < 6, "a graphic or page, not a coloured picture")
    mean = float(scene.hsv[..., 1][scene.hsv[..., 2] > 0.2].mean()) if (scene.hsv[..., 2] > 0.2).any() else 0.0
    need(mean > 0.06, "the image has no colours to speak of")
    need(mean < 0.22 or mean > 0.5, "the colours are neither clearly muted nor clearly vivid")
    answer = "muted" if mean < 0.22 else "vivid"
    why = f"The mean saturation of the image is {round(100 * mean)} %. That makes its colours {answer}."
    return one(f"{answer} colours", answer, ("muted", "vivid"), why)


@skill("colour~colour properties~colour temperature of halves")
def temperature_of_halves(scene: Scene) -> Found:
    need(not scene.graphic and len(scene.segments) < 6, "a graphic or page, not a picture with two halves")
    pixels = scene.small.astype(np.float32)
    warmth = pixels[..., 0] - pixels[..., 2]
    half = warmth.shape[1] // 2
    left, right = float(warmth[:, :half].mean()), float(warmth[:, -half:].mean())
    need(abs(left - right) > 22, "both halves have similar colours")
    answer = "left" if left > right else "right"
    other = "right" if left > right else "left"
    why = (
        f"In the {answer} half red outweighs blue more strongly than in the {other} half. The difference is about "
        f"{round(abs(left - right))} of 255 steps. So the {answer} half has the warmer colours."
    )
    return one(f"a warmer {answer} half", answer, ("left", "right"), why)
