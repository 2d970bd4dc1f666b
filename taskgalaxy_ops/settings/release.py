"""What a release holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from taskgalaxy_ops.extensions import ALWAYS_RELEASED, RELEASE_FORMATS
from taskgalaxy_ops.settings.base import Strict, Variant, known
from taskgalaxy_ops.settings.pipeline import ContextFields


class DecontaminateSettings(Strict):
    """What of a release counts as an item of a benchmark (docs/decontamination.md)."""

    rule: Literal["drop", "mark"] = Field(
        "drop", description="drop: it is a reject; mark: the card and leaks.json name it, and it stays"
    )
    benchmarks: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of `taskgalaxy benchmarks add`; null: all that the store knows"
    )
    pdq_bits: int = Field(
        30, ge=0, le=96, description="pictures are one if their PDQ differs in as many of 256 bits, and"
    )
    correlation: float = Field(
        0.95, gt=0, le=1, description="the edges in thumbnails of 32 by 32 pixels correlate at least so much"
    )
    correlation_alone: float = Field(0.98, gt=0, le=1, description="or if these do so, whatever their PDQ is")
    pdq_bits_cropped: int = Field(
        40, ge=0, le=96, description="or if PDQ differs in as many bits from that of a crop, and"
    )
    correlation_cropped: float = Field(0.83, gt=0, le=1, description="the edges correlate so much with the crop's")
    sscd: str | None = Field(
        None, description="a file of SSCD's weights in TorchScript; null: pictures are not compared by SSCD"
    )
    sscd_cosine: float = Field(
        0.75, gt=0, le=1, description="pictures are one if the cosine of their SSCD descriptors is at least this"
    )
    question_runs: float = Field(
        0.6, gt=0, le=1, description="questions are one if they share this part of the shorter one's runs of 8 words"
    )
    question_cosine: float = Field(
        0.92, gt=0, le=1, description="or if the cosine of their embeddings is at least this, and"
    )
    question_terms: float = Field(
        0.6,
        ge=0,
        le=1,
        description="by weight, this part of the words that carry meaning is in both; 0: embeddings alone decide",
    )


class NearDuplicateSettings(Strict):
    """Which images look the same, and what becomes of them (docs/splits.md)."""

    rule: Literal["keep", "mark", "drop"] = Field(
        "keep",
        description="keep: all stay, and those that look the same share a split; mark: and Parquet names their group; "
        "drop: of those that look the same, one stays",
    )
    pdq_bits: int = Field(31, ge=0, le=31, description="pictures look the same if their PDQ differs in as many of 256")
    image_cosine: float = Field(
        0.97,
        gt=0,
        le=1,
        description="or if the cosine of their embeddings is at least this, and their PDQ differs in `pdq_bits_alike`",
    )
    pdq_bits_alike: int = Field(80, ge=0, le=128, description="see `image_cosine`; 0: embeddings are not compared")
    thumbnail_correlation: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="or if their thumbnails of 16 by 16 pixels correlate at least so much; null: they are not compared",
    )
    largest_group: int = Field(
        1000,
        ge=1,
        description="images; a longer chain of likenesses goes to train as a whole, so that it swallows no other split",
    )


class RepeatSettings(Strict):
    """How often a task type may ask the same of different images (docs/splits.md#repeated-questions)."""

    same: int | None = Field(None, ge=1, description="samples whose question has the same words; null: any number")
    alike: int | None = Field(None, ge=1, description="samples whose question means the same; null: any number")
    cosine: float = Field(0.9, gt=0, le=1, description="of the questions' embeddings, from which on they mean the same")


class BalanceSettings(Strict):
    """How many samples a release takes of which task types (docs/splits.md#mixing-task-types)."""

    forms: dict[Variant, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        min_length=1,
        description="shares of forms, by weight: as many samples as keep to them, and none of forms that are not "
        "named; null: as they come",
    )
    floor: int = Field(1, ge=1, description="samples; a task type with fewer is left out")
    task_types: float = Field(
        1.0, gt=0, le=1, description="share of the task types, of each first-level branch as many"
    )
    samples: int | None = Field(None, ge=1, description="in all; null: all")
    temperature: float = Field(
        1.0, ge=1, description="1: task types keep their proportions within `samples`; the higher, the more even"
    )


class ReleaseSettings(Strict):
    """What a release holds."""

    cap: int | None = Field(None, ge=1, description="samples a task type")
    validation: float = Field(0.05, ge=0, lt=1, description="share of images")
    test: float = Field(0.05, ge=0, lt=1, description="share of images")
    copy_images_up_to: int = Field(2_000_000_000, ge=0, description="bytes; beyond it images are referred to")
    # As `formats` below: left out where it is the default.
    images: Literal["rendition", "original"] = Field(
        "rendition",
        description="rendition: the picture that the teacher was sent, a JPEG without EXIF; original: the file itself",
        exclude_if=lambda images: images == "rendition",
    )
    near_duplicate_bits: int = Field(0, ge=-1, le=32, description="perceptual-hash distance; -1: keep all")
    variants: tuple[Variant, ...] | None = Field(None, min_length=1, description="only these; null: all")
    # Left out of what is kept and hashed where it is the default: it came later, and changes nothing made before it.
    formats: tuple[Annotated[str, known(RELEASE_FORMATS)], ...] = Field(
        ALWAYS_RELEASED,
        description="llava and parquet always; beside them any that ships or that installed packages bring",
        exclude_if=lambda formats: set(formats) == set(ALWAYS_RELEASED),
    )

    context: ContextFields = Field(
        (),
        description="fields of an image's context that each row has, as text of its sources",
        exclude_if=lambda fields: not fields,
    )

    probability: Literal["votes", "recorded"] | None = Field(
        None,
        description="a column with each sample's probability of being right, and how right the judges are on the card: "
        "by all votes of the release, or by what `taskgalaxy judges --record` recorded last; null: neither",
        exclude_if=lambda chosen: chosen is None,
    )

    blind: bool = Field(
        False,
        description="a column that says whether `vote.blind` answered the question without the image, and their number "
        "on the card",
        exclude_if=lambda chosen: not chosen,
    )

    decontaminate: DecontaminateSettings | None = Field(
        None,
        description="leave out, or mark, what is in a benchmark (docs/decontamination.md): {} for the package's "
        "thresholds; null: nothing is compared",
        exclude_if=lambda chosen: chosen is None,
    )

    near_duplicates: NearDuplicateSettings | None = Field(
        None,
        description="images that look the same, by PDQ and embedding, stay on one side of a split (docs/splits.md): {} "
        "for the package's thresholds; null: they are not looked for",
        exclude_if=lambda chosen: chosen is None,
    )

    repeats: RepeatSettings | None = Field(
        None,
        description="how often a task type may ask the same of different images; null: as often as it does",
        exclude_if=lambda chosen: chosen is None,
    )
    licences: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="of images, as sources state them or as the Hub names them (cc-by-4.0); unknown: none is stated; "
        "null: all",
        exclude_if=lambda chosen: chosen is None,
    )
    balance: BalanceSettings | None = Field(
        None,
        description="a number of samples in all, a share of the task types, and how even they are; null: all",
        exclude_if=lambda chosen: chosen is None,
    )

    @field_validator("formats")
    @classmethod
    def _readable(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if missing := set(ALWAYS_RELEASED) - set(formats):
            raise ValueError(
                f"{', '.join(sorted(missing))} is missing: training, take-downs and `explain` read them. Add it"
            )
        if len(set(formats)) < len(formats):
            raise ValueError(f"a format is there twice: {', '.join(formats)}")
        return formats
