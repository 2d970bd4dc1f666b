"""Rules on colours: each judge counts the pixels by its own naming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.judges import finding, palettes, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]


def _wanted(params: Params) -> str:
    name = palettes.canonical(params["colour"])
    if name is None:
        raise SenselessError(f"'{params['colour']}' is no colour that I know")
    return name


def generous(view: View, name: str) -> float:
    """Share of the image that can go by a colour's name: what bears it, and what lies on its borders."""

    def make() -> dict[str, float]:
        pixels = view.pixels(96).reshape(-1, 3)
        distances = palettes.distances(pixels)
        near = distances <= np.maximum(1.3 * distances.min(axis=1), distances.min(axis=1) + 4)[:, None]
        return dict(zip(palettes.NAMES, near.mean(axis=0).tolist(), strict=True))

    loose: dict[str, float] = view.part("generous shares", make)
    return max(view.shares.get(name, 0.0), loose[name])


def _dominant(view: View, _: Params) -> Found:
    first, most = next(iter(view.shares.items()))
    near = [name for name in palettes.NAMES if name != first and palettes.neighbours(name, first)]
    right = [first, *(n for n in view.shares if view.shares[n] > 0.75 * most and n != first)]
    right += [n for n in near if generous(view, n) > 0.8 * most and view.shares.get(n, 0) > 0.25 * most]
    return finding.colour(f"the greatest area ({most:.0%})", *right)


def _second(view: View, _: Params) -> Found:
    ordered = list(view.shares.items())
    if len(ordered) < 2 or ordered[1][1] < 0.01:
        raise SenselessError("I see only one colour")
    least = 0.6 * ordered[1][1]
    right = [name for name, share in ordered[1:] if share >= least]
    right += [n for n in palettes.NAMES if n != ordered[0][0] and n not in right and generous(view, n) >= ordered[1][1]]
    if ordered[0][1] < 1.3 * ordered[1][1]:
        right.append(ordered[0][0])
    return finding.colour(f"the second area ({ordered[1][1]:.0%})", *right)


def border(view: View) -> NDArray[np.uint8]:
    """(n, 3): the pixels along the four sides."""
    pixels = view.pixels()
    band = {"a": 1, "b": 3, "c": 2}[view.judge]
    sides = (pixels[:band], pixels[-band:], pixels[:, :band], pixels[:, -band:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _background(view: View, _: Params) -> Found:
    pixels = border(view)
    colour = tuple(float(v) for v in np.median(pixels, axis=0))
    shares = palettes.shares_of(view.judge, pixels)
    first = next(iter(shares))
    right = {n for n in shares if shares[n] > 0.3} | palettes.nearly(view.judge, (colour[0], colour[1], colour[2]))
    return finding.colour("the border", first, *sorted(right - {first}))


def _presence(view: View, params: Params) -> Found:
    name = _wanted(params)
    strict, loose = view.shares.get(name, 0.0), generous(view, name)
    said = f"{strict:.1%} of the image is {name}"
    if strict > 0.012 or loose > 0.03:
        if strict < 0.002:  # only what lies on the border of the name: either may be said
            return Found(said, lambda _: True)
        return finding.yes_no(said, True)
    return finding.yes_no(said, False)


def _share(view: View, params: Params) -> Found:
    name = _wanted(params)
    strict, loose = view.shares.get(name, 0.0), generous(view, name)
    low, high = sorted((strict, max(strict, min(loose, strict + 0.08))))

    def agrees(said: str) -> bool:
        value = words.number(said)
        return value is not None and low * 100 - 10.5 <= value <= high * 100 + 10.5

    return Found(f"{strict:.0%} is {name}", agrees, (100 * strict,))


def saturated(view: View) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Hue (degrees), saturation and value (0 to 1) of the pixels, flat."""
    unit = view.pixels(128).reshape(-1, 3).astype(float) / 255
    high, low = unit.max(axis=1), unit.min(axis=1)
    spread = high - low
    red, green, blue = unit.T
    safe = np.where(spread > 0, spread, 1)
    hue = np.select(
        [high == red, high == green], [(green - blue) / safe % 6, (blue - red) / safe + 2], (red - green) / safe + 4
    )
    return np.where(spread > 0, hue * 60, 0.0), np.where(high > 0, spread / np.where(high > 0, high, 1), 0.0), high


def _warmth(view: View, _: Params) -> Found:
    if view.judge == "b":
        warm = sum(share for name, share in view.shares.items() if name in palettes.WARM)
        cool = sum(share for name, share in view.shares.items() if name in palettes.COOL)
    elif view.judge == "a":
        hue, saturation, value = saturated(view)
        weight = saturation * value * (saturation > 0.12)
        is_warm = (hue < 75) | (hue >= 330)
        warm, cool = float(weight[is_warm].sum()), float(weight[~is_warm].sum())
    else:  # along the axis from blue to yellow, and half as much from green to red
        values = palettes.lab(view.pixels(128).reshape(-1, 3))
        lean = values[:, 2] + 0.5 * values[:, 1]
        warm, cool = float((lean[lean > 9] - 9).sum()), float((-9 - lean[lean < -9]).sum())
    share = warm / max(warm + cool, 1e-9)
    return finding.choice(f"{share:.0%} of the colour is warm", "warm" if share >= 0.5 else "cool")


def _chroma(view: View) -> float:
    """How colourful the image is, as a share of pixels that clearly have a colour."""
    pixels = view.pixels(128).reshape(-1, 3)
    if view.judge == "a":
        return float((np.ptp(pixels.astype(int), axis=1) > 24).mean())
    if view.judge == "b":
        return float((np.ptp(pixels.astype(int), axis=1) > 17).mean())
    _, a, b = palettes.lab(pixels).T
    return float((np.hypot(a, b) > 9).mean())


def _grey(view: View, _: Params) -> Found:
    share = _chroma(view)
    return finding.choice(
        f"{share:.0%} of the pixels have a colour", "in colour" if share > 0.015 else "in shades of grey"
    )


def _vivid(view: View, _: Params) -> Found:
    saturation = saturated(view)[1]
    mean = float(saturation.mean())
    if view.judge == "b":
        mean = 0.5 * mean + 0.5 * float(np.median(saturation))
    elif view.judge == "c":
        mean = float(np.clip(saturation, 0, 0.9).mean()) * 1.04
    return finding.choice(f"mean saturation is {mean:.2f}", "muted" if mean < 0.36 else "vivid")


def _warmer_half(view: View, _: Params) -> Found:
    pixels = view.pixels().astype(float)
    red, blue = pixels[..., 0], pixels[..., 2]
    if view.judge == "a":
        plane = red - blue
    elif view.judge == "b":
        plane = np.clip(red - blue, -80, 80)
    else:
        lab = palettes.lab(pixels.reshape(-1, 3)).reshape(pixels.shape)
        plane = lab[..., 2] + 0.45 * lab[..., 1]
    left, right = (float(half.mean()) for half in np.array_split(plane, 2, axis=1))
    if abs(left - right) < 1.2:
        return finding.choice("both halves are about as warm", "left", "right")
    return finding.choice(f"warmth is {left:.0f} and {right:.0f}", "left" if left > right else "right")


RULES: dict[str, Rule] = {
    "dominant colour identification": _dominant,
    "second most common colour": _second,
    "background colour identification": _background,
    "colour presence check": _presence,
    "colour share estimation": _share,
    "warm or cool palette": _warmth,
    "greyscale or colour": _grey,
    "saturation level": _vivid,
    "colour temperature of halves": _warmer_half,
}
