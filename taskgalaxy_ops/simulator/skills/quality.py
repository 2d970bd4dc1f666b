"""Skills for exposure, quality, composition, and the comparison of an image's halves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.perception import Scene
from taskgalaxy_ops.simulator.skills.base import Found, need, one, other_regions, region, skill

_RATIOS = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (4, 5), (3, 4), (2, 3), (9, 16), (1, 2))
_LEAST = 150  # pixels: a smaller image is not judged as a photograph


def _picture(scene: Scene) -> None:
    need(min(scene.image.size) >= _LEAST, "the image is too small to judge its quality")
    need(not scene.graphic and len(scene.segments) < 6, "a graphic or a page of text, not a photograph")


def _photo(scene: Scene) -> None:
    need(min(scene.image.size) >= _LEAST, "the image is too small to judge its quality")
    need(scene.photo, "not clearly a photograph")


@skill("image quality & photography~exposure & tone~brightness level")
def brightness(scene: Scene) -> Found:
    _picture(scene)
    mean = float(scene.light.mean())
    need(mean < 75 or 105 < mean < 150 or mean > 185, "the brightness lies between two levels")
    answer = "dark" if mean < 75 else "bright" if mean > 185 else "medium"
    why = f"The mean luminance is {round(mean)} on a scale from 0 to 255. That is {_level(answer)}."
    return one(
        f"an image of {answer} brightness" if answer == "medium" else f"a {answer} image",
        answer,
        ("dark", "bright"),
        why,
    )


def _level(answer: str) -> str:
    return {"dark": "low, so the image is dark", "bright": "high, so the image is bright"}.get(
        answer, "near the middle, so the brightness is medium"
    )


@skill("image quality & photography~exposure & tone~contrast level")
def contrast(scene: Scene) -> Found:
    _picture(scene)
    spread = float(scene.light.std())
    span = float(np.percentile(scene.light, 99.5) - np.percentile(scene.light, 0.5))
    need((spread < 28 and span < 140) or spread > 62, "the contrast is neither clearly low nor clearly high")
    answer = "low" if spread < 28 else "high"
    tones = "mostly similar tones" if answer == "low" else "both very dark and very light tones"
    why = f"The luminance has a standard deviation of {round(spread)} of 255 steps. The image has {tones}."
    return one(f"{answer} contrast", answer, ("low", "high"), f"{why} So its contrast is {answer}.")


@skill("image quality & photography~exposure & tone~overexposure check")
def overexposure(scene: Scene) -> Found:
    _photo(scene)
    return _extreme(scene.light >= 253, 0.08, "white")


@skill("image quality & photography~exposure & tone~underexposure check")
def underexposure(scene: Scene) -> Found:
    _photo(scene)
    return _extreme(scene.light <= 5, 0.15, "black")


def _extreme(pixels: NDArray[np.bool_], much: float, tone: str) -> Found:
    share = float(pixels.mean())
    need(share > much or share < 0.003, f"some of the image is {tone}, but not clearly much")
    answer = "Yes" if share > much else "No"
    amount = f"About {round(100 * share)} %" if share > much else "Practically none"
    why = f"{amount} of the pixels are pure {tone}. So the answer is {answer.lower()}."
    return one(f"a photograph with {'much' if share > much else 'no'} pure {tone}", answer, ("Yes", "No"), why)


@skill("image quality & photography~exposure & tone~brightest region location")
def brightest(scene: Scene) -> Found:
    _picture(scene)
    return _extreme_region(scene, 1, "brightest")


@skill("image quality & photography~exposure & tone~darkest region location")
def darkest(scene: Scene) -> Found:
    _picture(scene)
    return _extreme_region(scene, -1, "darkest")


def _extreme_region(scene: Scene, sign: int, word: str) -> Found:
    means = [
        (sign * float(cell.mean()), region((x + 0.5) / 3, (y + 0.5) / 3))
        for y, row in enumerate(np.array_split(scene.light, 3))
        for x, cell in enumerate(np.array_split(row, 3, axis=1))
    ]
    (first, where), (second, _) = sorted(means, reverse=True)[:2]
    need(first - second > 14, f"no part of the image is clearly the {word}")
    why = (
        f"Divided into a grid of three by three, the part called {where} has a mean luminance of "
        f"{round(abs(first))} of "
        f"255. The next one has {round(abs(second))}, so {where} is clearly the {word}."
    )
    return one(f"the {where} part is the {word}", where, other_regions(where), why)


@skill("image quality & photography~technical quality~sharpness assessment")
def sharpness(scene: Scene) -> Found:
    need(min(scene.image.size) >= _LEAST, "the image is too small to judge its quality")
    need(not scene.graphic and (scene.grey or scene.top_colours < 0.6), "not clearly a photograph")
    light = scene.light
    spread = float(np.percentile(light, 99) - np.percentile(light, 1))
    need(spread > 40, "the image has too little contrast to judge its edges")
    step = np.abs(np.diff(light, axis=1))
    steepest = float(np.percentile(step, 99.8)) / spread
    need(steepest > 0.32 or steepest < 0.08, "neither clearly sharp nor clearly blurred")
    answer = "sharp" if steepest > 0.32 else "blurred"
    width = "within one or two pixels" if answer == "sharp" else "only over many pixels"
    why = f"At its strongest edges the brightness changes {width}. So the photograph is {answer}."
    return one(f"edges that are {answer}", answer, ("sharp", "blurred"), why)


@skill("image quality & photography~technical quality~resolution assessment")
def resolution(scene: Scene) -> Found:
    width, height = scene.image.size
    need(max(width, height) < 1024, "the image may have been scaled down before it was sent")
    need(min(width, height) >= _LEAST, "only a tiny picture")
    right = f"{width} × {height} pixels"
    wrong = (f"{width * 2} × {height * 2} pixels", f"{width // 2} × {height // 2} pixels")
    why = f"The image has {width} columns and {height} rows of pixels. So it is {right}."
    return one(f"an image of {width} by {height} pixels", right, wrong, why)


@skill("image quality & photography~composition~image orientation")
def orientation(scene: Scene) -> Found:
    ratio = scene.width / scene.height
    need(ratio > 1.1 or ratio < 0.91 or 0.995 < ratio < 1.005, "the image is nearly square")
    answer = "landscape" if ratio > 1.1 else "portrait" if ratio < 0.91 else "square"
    relation = {"landscape": "greater than", "portrait": "less than", "square": "the same as"}[answer]
    why = f"The image is {scene.width} pixels wide and {scene.height} pixels high. Its width is {relation} its height."
    return one(f"a {answer} image", answer, ("landscape", "portrait", "square"), f"{why} So it is {answer}.")


@skill("image quality & photography~composition~aspect ratio estimation")
def aspect_ratio(scene: Scene) -> Found:
    ratio = scene.width / scene.height
    near = [(w, h) for w, h in _RATIOS if abs(ratio * h / w - 1) < 0.01]
    need(len(near) == 1, "the image has no common ratio of width to height")
    width, height = near[0]
    wrong = [f"{w}:{h}" for w, h in _RATIOS if abs(ratio * h / w - 1) > 0.15][:6]
    why = (
        f"The image is {scene.width} pixels wide and {scene.height} pixels high. "
        f"{scene.width} divided by {scene.height} "
        f"is about {ratio:.2f}, which is {width}:{height}."
    )
    return one(f"sides in the ratio {width}:{height}", f"{width}:{height}", wrong, why)


@skill("image quality & photography~composition~mirror symmetry check")
def symmetry(scene: Scene) -> Found:
    need(len(scene.segments) < 4, "a page of text, for which symmetry makes no sense")
    copy = np.asarray(scene.image.convert("L").resize((64, 64)), np.float32)
    need(copy.std() > 18, "the image is too plain to judge")
    left, mirrored = copy[:, :32], copy[:, :31:-1]
    alike = float(np.corrcoef(left.ravel(), mirrored.ravel())[0, 1]) if min(left.std(), mirrored.std()) > 1 else 0.0
    apart = float(np.abs(left - mirrored).mean())
    need((alike > 0.97 and apart < 6) or (alike < 0.4 and apart > 25), "neither clearly symmetric nor clearly not")
    answer = "Yes" if alike > 0.9 else "No"
    relation = "agrees nearly everywhere with" if answer == "Yes" else "differs much from"
    why = f"The left half {relation} the right half when that is flipped over. So the answer is {answer.lower()}."
    return one("two halves that can be compared", answer, ("Yes", "No"), why)


@skill("image quality & photography~composition~detail density")
def detail(scene: Scene) -> Found:
    need(min(scene.image.size) >= _LEAST and len(scene.segments) < 4, "too small, or a page of text")
    share = float((scene.edges > 12).mean())
    need(share > 0.1 or scene.top_colours > 0.5, "few edges, but many colours")
    need(share < 0.04 or share > 0.4, "neither clearly plain nor clearly full of detail")
    answer = "plain" if share < 0.04 else "full of detail"
    why = f"About {round(100 * share)} % of the image's points lie on an edge. That makes it {answer}."
    return one(f"an image that is {answer}", answer, ("plain", "full of detail"), why)


@skill("image quality & photography~composition~border presence")
def border(scene: Scene) -> Found:
    pixels = scene.rgb.astype(np.int16)
    need(min(scene.image.size) >= _LEAST, "the image is too small to have a frame")
    sides = [pixels, pixels[::-1], pixels.transpose(1, 0, 2), pixels[:, ::-1].transpose(1, 0, 2)]
    varied = min(float(side[:3].std(axis=(0, 1)).max()) for side in sides)
    if varied > 25 and not scene.graphic:
        why = (
            "Along all four sides the outermost pixels vary as much as the picture itself. So there is no plain frame."
        )
        return one("a picture that runs to its edges", "No", ("Yes", "No"), why)
    ground = np.median(pixels[:2].reshape(-1, 3), axis=0)
    away = np.abs(pixels - ground)
    other = np.maximum(np.maximum(away[..., 0], away[..., 1]), away[..., 2]) > 30
    depths = [_frame_depth(side) for side in (other, other[::-1], other.T, other[:, ::-1].T)]
    need(all(0.008 < d < 0.13 for d in depths), "no clear frame, but a plain edge")
    need(max(depths) - min(depths) < 0.05, "the plain edges differ in width")
    why = (
        "A plain band of one colour runs along all four sides. It ends at a straight line, within which the picture "
        "begins. So there is a frame."
    )
    return one("a plain band along all four sides", "Yes", ("Yes", "No"), why)


def _frame_depth(side: NDArray[np.bool_]) -> float:
    """How deep the plain band along the first axis is, as a share of the length; 1 where no straight line ends it.

    side: which pixels are not of the band's colour.
    """
    other = side.mean(axis=1)
    begun = np.flatnonzero(other > 0.01)
    if not len(begun) or other[begun[0] : begun[0] + 4].max() < 0.6:
        return 1.0
    return float(begun[0]) / len(other)


@skill("image quality & photography~photographic technique~photo or drawing")
def photo_or_drawing(scene: Scene) -> Found:
    need(min(scene.image.size) >= 64, "the image is too small to tell")
    photo = scene.photo and not scene.graphic
    need(photo or (scene.graphic and scene.flat > 0.55), "neither clearly a photograph nor clearly a graphic")
    answer = "photograph" if photo else "graphic"
    why = (
        "The tones change gradually and vary from pixel to pixel nearly everywhere. So it is a photograph."
        if photo
        else f"About {round(100 * scene.top_colours)} % of the image consist of a few even colours with clean borders. "
        "So it is a graphic."
    )
    return one(f"what is clearly a {answer}", answer, ("photograph", "graphic"), why)


@skill("comparison~halves & panels~brighter half identification")
def brighter_half(scene: Scene) -> Found:
    _picture(scene)
    half = scene.width // 2
    return _halves(float(scene.light[:, :half].mean()), float(scene.light[:, -half:].mean()), ("left", "right"))


@skill("comparison~halves & panels~top and bottom brightness comparison")
def top_or_bottom(scene: Scene) -> Found:
    _picture(scene)
    half = scene.height // 2
    return _halves(float(scene.light[:half].mean()), float(scene.light[-half:].mean()), ("upper", "lower"))


def _halves(first: float, second: float, names: tuple[str, str]) -> Found:
    need(abs(first - second) > 16, "both halves are about equally bright")
    answer = names[first < second]
    why = (
        f"The {names[0]} half has a mean luminance of {round(first)}, the {names[1]} half of "
        f"{round(second)}, on a scale "
        f"from 0 to 255. So the {answer} half is brighter."
    )
    return one(f"a clearly brighter {answer} half", answer, names, why)


@skill("comparison~halves & panels~more detailed half identification")
def more_detailed_half(scene: Scene) -> Found:
    _picture(scene)
    edges = scene.edges > 16
    half = edges.shape[1] // 2
    left, right = float(edges[:, :half].mean()), float(edges[:, -half:].mean())
    need(max(left, right) > 0.08 and max(left, right) > 1.9 * min(left, right), "both halves hold similar detail")
    answer = "left" if left > right else "right"
    why = (
        f"In the left half {round(100 * left)} % of the points lie on an edge, in the right half "
        f"{round(100 * right)} %. "
        f"So the {answer} half shows more detail."
    )
    return one(f"more detail in the {answer} half", answer, ("left", "right"), why)
