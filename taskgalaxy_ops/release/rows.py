"""The rows of a release, and the lines of canonical JSON by which they are hashed."""

from __future__ import annotations

import json
from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from taskgalaxy_ops.records import ImageId, PairId, Turn, turns_in
from taskgalaxy_ops.release.sqlite_staging import canonical

_TRUTH = ("false", "true")  # of a flag, as JSON has it


class Sample(NamedTuple):
    """A sample of a release, with the claims on its image."""

    pair: PairId
    image: ImageId
    task_type: str
    variant: str
    question: str
    answer: str
    reasoning: str | None
    further_turns: str | None  # as ``records.Pair`` has them
    further_images: str | None  # as ``records.Pair`` has them
    votes: str | None  # JSON, in the settings' order of judges
    claims: str  # JSON: the live sources' claims on the image, in order of source
    location: str  # of the image: a path within the release, or the URI of its bytes in the store
    size: int  # about the bytes of the image that the row contains: 0 if it is referred to
    picture: int  # number of the image, in order of id
    context: str | None  # JSON: the fields of ``release.context`` that a source states; None: none of them
    blind: int | None  # 1: it was answered without the image, 0: it was not, None: nobody tried
    further: str | None  # JSON: what else is to be known of its further images, [place, *SampleImage] each

    @property
    def images(self) -> tuple[SampleImage, ...]:
        """The images that it is about, in their order: one, but for samples about several."""
        own = SampleImage(self.image, self.location, self.size, self.picture, self.claims)
        if self.further is None:
            return (own,)
        return own, *(SampleImage(*rest) for _, *rest in sorted(json.loads(self.further)))

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Every question with its answer: one, but for conversations."""
        return (self.question, self.answer), *turns_in(self.further_turns)

    @property
    def locations(self) -> tuple[str, ...]:
        """Those of its images."""
        return (self.location,) if self.further is None else tuple(image.location for image in self.images)


def beside(location: str) -> str:
    """An image's location as seen from a folder in the release."""
    return location if location.startswith("/") or "://" in location else f"../{location}"


class SampleImage(NamedTuple):
    """One of a sample's images; the fields are those of ``Sample``."""

    image: ImageId
    location: str
    size: int
    picture: int
    claims: str


class Picture(NamedTuple):
    """An image of a release."""

    image: ImageId
    width: int
    height: int
    format: str
    size: int
    phash: str
    levels: str | None
    content: str | None
    claims: str
    context: str | None
    location: str


def sample_line(s: Sample, split: str) -> bytes:
    """``{"pair": records.Pair, "split"}``."""
    further = "" if s.further_images is None else f'"further_images":{quoted(s.further_images)},'
    further += "" if s.further_turns is None else f'"further_turns":{quoted(s.further_turns)},'
    reasoning = "" if s.reasoning is None else f'"reasoning":{quoted(s.reasoning)},'
    return canonical(
        f'{{"pair":{{"answer":{quoted(s.answer)},{further}"image":"{s.image}","pair":"{s.pair}",'
        f'"question":{quoted(s.question)},{reasoning}"task_type":{quoted(s.task_type)},'
        f'"variant":{quoted(s.variant)}}},"split":"{split}"}}'
    )


def image_line(p: Picture) -> bytes:
    """``{"image": records.Image, "location", "claims": [records.Claim], "context"}``, the last where it is set."""
    content = "" if p.content is None else f'"content":"{p.content}",'
    levels = "" if p.levels is None else f'"levels":{quoted(p.levels)},'
    context = "" if p.context is None else f'"context":{p.context},'
    return canonical(
        f'{{"claims":{p.claims},{context}"image":{{{content}"format":{quoted(p.format)},"height":{p.height},'
        f'"image":"{p.image}",{levels}"phash":"{p.phash}","size":{p.size},"width":{p.width}}},'
        f'"location":{quoted(p.location)}}}'
    )


def verdict_line(pair: PairId, accepted: int, approvals: int, votes: int, blind: int | None) -> bytes:
    """``records.Verdict``."""
    told = "" if blind is None else f'"blind":{_TRUTH[blind]},'
    return canonical(
        f'{{"accepted":{_TRUTH[accepted]},"approvals":{approvals},{told}"pair":{quoted(pair)},"votes":{votes}}}'
    )
