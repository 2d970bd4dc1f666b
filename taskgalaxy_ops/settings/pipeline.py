"""Settings of the stages and of a run: encoder, match, taxonomy, write, release, batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from taskgalaxy_ops.extensions import ENCODERS
from taskgalaxy_ops.settings.base import Strict, Variant, known
from taskgalaxy_ops.settings.checks import CheckSettings


class EncoderSettings(Strict):
    """The encoder, which places images and task types in one space."""

    name: Annotated[str, known(ENCODERS)] = Field(
        "conse",
        description="conse, open_clip, transformers, or one that an installed package brings",
        examples=list(ENCODERS.shipped),
    )
    model: str | None = Field(None, description="open_clip model, e.g. ViT-L-14, or hf-hub:…; transformers' repository")
    pretrained: str | None = Field(None, description="open_clip tag, e.g. openai, or a checkpoint file, also s3://…")
    # Left out of what is kept and hashed where they are unset: they came later, and change nothing made before them.
    runtime: Literal["torch", "onnxruntime", "openvino"] | None = Field(
        None, description="what computes; null: the encoder's own", exclude_if=lambda chosen: chosen is None
    )
    precision: Literal["bf16", "fp16", "int8"] | None = Field(
        None,
        description="of images; null: float32; fp16 on GPUs; int8 (runtime: openvino) is calibrated at the first "
        "embed, and refused where it finds other task types than float32",
        exclude_if=lambda chosen: chosen is None,
    )
    decode: Literal["quick", "device"] | None = Field(
        None,
        description="quick: a JPEG at the smallest of libjpeg's scales that the encoder needs; device: so, and resized "
        "where the network is, a GPU say (open_clip); null: at full size",
        exclude_if=lambda chosen: chosen is None,
    )
    compiled: bool = Field(
        False,
        description="the network by torch.compile, which takes minutes at first: for GPUs; changes no key",
        exclude_if=lambda chosen: not chosen,
    )
    fit: Literal["pad"] | None = Field(
        None,
        description="pad: the whole image, on a square; null: its middle square",
        exclude_if=lambda chosen: chosen is None,
    )
    templates: tuple[Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")], ...] = Field(
        (),
        description="sentences with {} for the task type, such as 'a photo for the task of {}': a task type is "
        "embedded as their mean; none: as its labels",
        exclude_if=lambda chosen: not chosen,
    )


class MatchSettings(Strict):
    """Which task types an image is matched with."""

    k: int = Field(10, ge=1, le=1000)
    # As those of the encoder: left out where they are unset.
    min_similarity: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="cosine below which a task type is no match; null: an image always has k",
        exclude_if=lambda chosen: chosen is None,
    )
    per_branch: int | None = Field(
        None,
        ge=1,
        description="of an image's k, at most so many below one first-level node: others follow; null: no bound",
        exclude_if=lambda chosen: chosen is None,
    )
    prefer_starving: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of the 4 k nearest, the k with the greatest similarity after this is taken off for each tenfold "
        "of samples that a task type has by the newest `taskgalaxy coverage --record`, e.g. 0.02; null: the k nearest",
        exclude_if=lambda chosen: chosen is None,
    )

    @property
    def always_k(self) -> bool:
        """Whether an image has k matches whatever it shows, if there are as many task types."""
        return self.min_similarity is None and self.per_branch is None

    @property
    def breadth(self) -> dict[str, float]:
        """What is set beside k, by name."""
        return {name: value for name, value in self.model_dump().items() if name != "k"}


class WeaknessSettings(Strict):
    """How the scores of a fine-tuned model weigh the branches of the taxonomy."""

    most: float = Field(3.0, ge=1, description="the largest weight of a branch; the smallest is one part of it")
    benchmarks: dict[str, tuple[str, ...]] = Field(
        {}, description="first-level nodes that a benchmark is about, by its name; default: of the shipped taxonomy"
    )


Width = Annotated[int, Field(ge=1)]


class TaxonomySettings(Strict):
    """The taxonomy's seeds, and how the taxonomy grows."""

    seeds: str | None = Field(None, description="a YAML file of your own; default: the package's")
    near_duplicate: float = Field(
        0.95, gt=0, le=1, description="cosine from which a new label counts as a near-duplicate of another"
    )
    children: int = Field(12, ge=1, le=200, description="labels asked for in one request")
    # Left out of what is kept and hashed where they are unset: they came later, and change nothing made before them.
    rules: str | None = Field(
        None,
        description="a YAML file with rules of labels of your own, laid over the package's; null: the package's",
        exclude_if=lambda chosen: chosen is None,
    )
    widths: tuple[Width, Width, Width] | None = Field(
        None,
        description="the most first-level nodes, children of a first-level node and children of a second-level node "
        "to which an expansion grows; null: no bound",
        exclude_if=lambda chosen: chosen is None,
    )
    novelty: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the last labels proposed below a node that must have become nodes, "
        "for an expansion to ask there again",
        exclude_if=lambda share: share == 0.25,
    )
    cousins: int = Field(
        0,
        ge=0,
        le=100,
        description="nearest nodes of other branches that a request names, so that they are not proposed again; "
        "they are part of what is asked",
        exclude_if=lambda number: number == 0,
    )
    approval: Literal["required", "by_rule", "off"] = Field(
        "required",
        description="who approves a proposed version: a person; the rule below, else a person (by_rule); nobody (off)",
    )
    approve_up_to: int = Field(20, ge=0, description="by_rule: a proposal of at most this many nodes needs no person")
    scheduled_new: int = Field(40, ge=1, description="nodes that a scheduled growth adds at most")
    scheduled_images_a_type: float = Field(
        5.0, ge=0, description="a scheduled growth looks only below nodes with this many fitting images a task type"
    )
    weaknesses: WeaknessSettings | None = Field(
        None,
        description="grow first, and ask more, where the latest fine-tuned model is weak; null: never",
        exclude_if=lambda chosen: chosen is None,
    )


def shown_context(what: str) -> Any:
    """A list of fields of the context. Left out where it is empty: it came later, and changes nothing made before."""
    return Field(
        (),
        description=f"fields of an image's context (caption, alt …; origin, licence, attribution) that {what}; "
        "what is shown is part of what is asked",
        exclude_if=lambda fields: not fields,
    )


def _distinct(fields: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(fields)) < len(fields):
        raise ValueError(f"a field is there twice: {', '.join(fields)}")
    return fields


ContextFields = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], AfterValidator(_distinct)]


def _path(path: str) -> str:
    if not all(label.strip() == label and label for label in path.split("~")):
        raise ValueError(f"{path!r} is no path of a node: labels joined by ~, such as ocr~receipts")
    return path


def _node_pattern(pattern: str) -> str:
    _path(pattern.removeprefix("!"))
    return pattern


class FilterSettings(Strict):
    """What the teacher is shown where it decides which task types fit."""

    context: ContextFields = shown_context("the teacher is shown")


class WriteSettings(Strict):
    """What the teacher writes for each fitting pair."""

    variants: tuple[Variant, ...] = Field(("plain",), min_length=1)
    context: ContextFields = shown_context("the teacher is shown")
    # Left out of what is kept and hashed where they are unset: they came later, and change nothing made before them.
    shares: dict[Variant, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="weights of all of `variants`: a fitting task type is written in one of them, drawn by hash; "
        "null: in each",
        exclude_if=lambda chosen: chosen is None,
    )
    suits: dict[Variant, tuple[Annotated[str, AfterValidator(_node_pattern)], ...]] = Field(
        {},
        description="task types that a form is for, in place of its own: paths of nodes (ocr~receipts) or patterns "
        "(*~* reading), after ! those left out; []: all",
        exclude_if=lambda chosen: not chosen,
    )
    fused: bool = Field(
        False,
        description="ask for questions of one form in the request that asks which task types fit: it saves up to half "
        "of the teacher's requests and image tokens (docs/questions.md); changes no key, and asks nothing anew",
        exclude_if=lambda fused: not fused,
    )
    swapped: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of fitting matches, by hash, that are also asked another image's plain question, which they "
        "most likely do not answer: pairs of the form unanswerable, which no teacher is asked for",
        exclude_if=lambda share: not share,
    )
    checks: CheckSettings | None = Field(
        None,
        description="reject pairs by their texts before judges are paid (docs/questions.md): {} for the package's "
        "rules; null: none",
        exclude_if=lambda chosen: chosen is None,
    )
    answers: int = Field(
        1,
        ge=1,
        le=16,
        description="answers of the teacher to each question of a form that allows it (plain, chain_of_thought), all "
        "judged alike; a release holds one of them; not with `targets`",
        exclude_if=lambda number: number == 1,
    )
    answers_temperature: float | None = Field(
        1.0,
        ge=0,
        le=2,
        description="at which the teacher gives those after the first; null: its own",
        exclude_if=lambda temperature: temperature == 1.0,
    )

    @property
    def forms_a_match(self) -> int:
        """The most question forms that a fitting match is written in."""
        return len(set(self.variants)) if self.shares is None else 1

    @model_validator(mode="after")
    def _of_variants(self) -> WriteSettings:
        forms = set(self.variants)
        if self.shares is not None and self.shares.keys() != forms:
            told = ", ".join(sorted(self.shares.keys() ^ forms))
            raise ValueError(f"shares must name the forms of `variants`, each once: mend {told}")
        if self.swapped and "plain" not in forms:
            raise ValueError("swapped takes plain questions: add plain to `variants`")
        if others := self.suits.keys() - forms:
            raise ValueError(f"suits names {', '.join(sorted(others))}, which `variants` lacks")
        return self


class BranchTarget(Strict):
    """What is enough of a task type."""

    samples: int = Field(50, ge=0, description="samples of a task type, after which no further image is tried")
    tries: int = Field(120, ge=1, description="images of a task type, after which it is given up")


class TargetSettings(BranchTarget):
    """What is enough of each task type. A run asks about no more images than that takes."""

    branches: dict[Annotated[str, AfterValidator(_path)], BranchTarget] = Field(
        {}, description="other numbers below a node, by its path (ocr~receipts); of several, the longest path counts"
    )

    @property
    def named(self) -> dict[str, BranchTarget]:
        """Each of them by the name of its setting."""
        return {"targets": self, **{f"targets.branches.{path}": each for path, each in self.branches.items()}}

    @property
    def rules(self) -> dict[str, str]:
        """The same in words, for people."""
        return {name: f"{each.samples} samples, {each.tries} tries" for name, each in self.named.items()}

    def of(self, task_type: str) -> BranchTarget:
        """The target of a task type, by its path."""
        path = task_type
        while path:
            if path in self.branches:
                return self.branches[path]
            path = path.rpartition("~")[0]
        return self


class BatchSettings(Strict):
    """How requests are sent to models of ``mode: batch``."""

    wait_seconds: float | None = Field(
        None,
        ge=0,
        description="how long a run waits for batches; the next run collects those that are left; null: until they end "
        "(in Airflow, airflow.lane_hours at most)",
    )
    poll_seconds: float = Field(30.0, gt=0, description="between two looks at a batch; in Airflow, 20 at least")
    lookup_seconds: float = Field(
        600.0,
        ge=0,
        description="how long workers look in the provider's list for a batch that a worker was making when it died, "
        "before they make it anew; set it longer than the list lags",
    )
    max_requests: int = Field(5000, ge=1, le=50_000, description="of one batch")
    max_bytes: int = Field(64_000_000, ge=1000, le=200_000_000, description="of one batch; it is built in memory")


class RunSettings(Strict):
    """How a run works. These settings change no data."""

    units_a_request: int = Field(16, ge=1, le=200)
    lease_seconds: float = Field(60.0, ge=3)
    homes_at_once: int = Field(4, ge=1, le=64)
    block_calls: int = Field(32, ge=1, description="calls taken from the budget at once")
    lost_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of units that may end malformed, too long or failed before a run ends with exit code 4",
        exclude_if=lambda share: share == 0.01,
    )
    batch: BatchSettings = BatchSettings()
