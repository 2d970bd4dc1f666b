"""A pair about several images before one judge: it looks at each for itself, and draws its own conclusion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product

from PIL import Image

from taskgalaxy_ops.simulator import several, templates
from taskgalaxy_ops.simulator.judges import palettes, words
from taskgalaxy_ops.simulator.judges.checking import check, cut, rules
from taskgalaxy_ops.simulator.judges.finding import REGIONS, Finding, Found, SenselessError, UnsureError, short
from taskgalaxy_ops.simulator.judges.views import view
from taskgalaxy_ops.simulator.several import About, Alone, Comparison, Value

_CLAIM = "visual claim verification"  # whose rule tells whether a text is printed in an image


def check_several(
    judge: str, images: Sequence[Image.Image], keys: Sequence[str], path: str, question: str, answer: str | None
) -> Finding:
    """What a judge finds of a question about several images, and of its answer where shown.

    keys: what names each image. Raises ValueError for another judge.
    """
    read = several.read(path, question, len(images))
    if read is None:
        return Finding(False, "the question is none about these images and of this task type")
    if isinstance(read, Alone):
        at = read.at or _marked(judge, images, keys, read.mark)
        if at is None:
            return Finding(False, cut(f"I do not read '{short(read.mark, 30)}' in one image alone"))
        return check(judge, images[at - 1], path, read.question, answer, None, keys[at - 1])
    comparison, about = read
    rule = rules()[comparison.path.rpartition("~")[2]]
    seen, told, unsure = [], [], ""
    for at in about.images:
        try:
            found = rule(view(judge, images[at - 1], keys[at - 1]), about.params)
        except SenselessError as error:
            if not comparison.by_value:
                return Finding(False, cut(f"the question does not fit image {at}: {error}"))
            found = Found(str(error), lambda _: False)
        except UnsureError as error:
            unsure = f"image {at}: {error}"
            found = Found("unclear", lambda _: None)
        if comparison.by_value and found.agrees(about.value) is None:
            unsure = unsure or f"image {at}: {found.said}"
        seen.append(_values(comparison, about, found))
        told.append(f"image {at}: {short(found.said, 40)}")
    if not all(seen):
        return Finding(None, cut(unsure or f"I cannot compare: {'; '.join(told)}"))
    right = {several.answer(comparison.relation, each, about) for each in product(*seen)} - {None}
    finding = _concluded(comparison, right, "; ".join(told), answer)
    if unsure and not (finding.right and comparison.relation == "which"):  # one that has it is enough
        return Finding(None, cut(unsure))
    return finding


def _marked(judge: str, images: Sequence[Image.Image], keys: Sequence[str], mark: str) -> int | None:
    """The one image in which a judge reads a text; None: there is none, or more than one."""
    reads = rules()[_CLAIM]
    views = [view(judge, image, key) for image, key in zip(images, keys, strict=True)]
    having = [at for at, each in enumerate(views, 1) if reads(each, {"text": mark}).agrees("true")]
    return having[0] if len(having) == 1 else None


def _values(comparison: Comparison, about: About, found: Found) -> list[Value]:
    """What an image may show, by what a judge found in it; none where it cannot tell."""
    if comparison.by_value:
        return [about.value if found.agrees(about.value) else ""]
    template = templates.load()[comparison.path]
    possible = {"colour": palettes.NAMES, "region": chain.from_iterable(REGIONS), "choice": template.choices}
    grades = comparison.grades or [(name,) for name in possible.get(template.kind, ())]
    agreed: list[Value] = [n for n, names in enumerate(grades) if any(map(found.agrees, names))]
    return agreed or list(found.values)


def _concluded(comparison: Comparison, right: set[str | None], told: str, answer: str | None) -> Finding:
    if not right:
        return Finding(False, cut(f"there is no one answer; {told}"))
    if answer is None:
        return Finding(True, cut(f"the question makes sense; {told}"))
    said = words.number(answer)
    numbers = [float(each) for each in right if each] if comparison.relation in several.SUMS else []
    agrees = any(said is not None and words.close(said, each) for each in numbers)
    if not agrees and words.squash(answer) not in {words.squash(each or "") for each in right}:
        return Finding(False, cut(f"{told}; the answer says {short(answer, 24)}"))
    return Finding(True, cut(f"{told}, as answered"))
