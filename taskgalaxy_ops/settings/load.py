"""All settings of a store, and how they are read from a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.extensions import QUESTION_FORMS
from taskgalaxy_ops.settings.airflow import AirflowSettings
from taskgalaxy_ops.settings.base import PROMPTS, Name, Strict, known_prompt, validated
from taskgalaxy_ops.settings.budget import BudgetSettings
from taskgalaxy_ops.settings.finetune import FinetuneSettings
from taskgalaxy_ops.settings.models import Model
from taskgalaxy_ops.settings.pipeline import (
    EncoderSettings,
    FilterSettings,
    MatchSettings,
    RunSettings,
    TargetSettings,
    TaxonomySettings,
    WriteSettings,
)
from taskgalaxy_ops.settings.release import ReleaseSettings
from taskgalaxy_ops.settings.sources import IngestSettings, S3Settings, SourceSettings
from taskgalaxy_ops.settings.vote import ReviewSettings, VoteSettings

EXAMPLE = Path(__file__).with_name("example.yaml")  # what `taskgalaxy settings` prints


class Settings(Strict):
    """All settings of a store."""

    store: str = "file://./galaxy"
    s3: S3Settings = S3Settings()
    sources: dict[Name, SourceSettings] = Field({})
    ingest: IngestSettings = IngestSettings()
    taxonomy: TaxonomySettings = TaxonomySettings()
    encoder: EncoderSettings = EncoderSettings()
    match: MatchSettings = MatchSettings()
    teacher: Model
    judges: tuple[Model, ...] = Field(min_length=1)
    prompts: dict[Annotated[str, AfterValidator(known_prompt)], str] = Field(
        default={}, description=f"files of your own, by prompt: {', '.join(PROMPTS)}, or write_ and a question form"
    )
    filter: FilterSettings = Field(FilterSettings(), exclude_if=lambda chosen: chosen == FilterSettings())
    write: WriteSettings = WriteSettings()
    vote: VoteSettings = VoteSettings()
    targets: TargetSettings | None = Field(
        None,
        description="samples that are enough of a task type, and tries after which it is given up; null: every image "
        "is asked about",
        exclude_if=lambda chosen: chosen is None,
    )
    budget: BudgetSettings = BudgetSettings()
    review: ReviewSettings = Field(ReviewSettings(), exclude_if=lambda chosen: chosen == ReviewSettings())
    release: ReleaseSettings = ReleaseSettings()
    run: RunSettings = RunSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    airflow: AirflowSettings = AirflowSettings()

    @field_validator("judges")
    @classmethod
    def _distinct(cls, judges: tuple[Model, ...]) -> tuple[Model, ...]:
        names = [judge.name for judge in judges]
        if len(set(names)) != len(names):
            raise ValueError(f"judges need different names, not {names}")
        by_request: dict[tuple[object, ...], str] = {}
        for judge in judges:
            request = (judge.model, judge.revision, judge.temperature, judge.image_side, judge.image_quality)
            if (other := by_request.setdefault(request, judge.name)) != judge.name:
                raise ValueError(
                    f"{other!r} and {judge.name!r} are one judge, since they ask {judge.model!r} the same: its one "
                    "reply would count twice. Give one of them another model, revision or temperature"
                )
        return judges

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        for role, model in [
            ("teacher", self.teacher),
            *((f"judges.{n}", judge) for n, judge in enumerate(self.judges)),
        ]:
            if model.images == "url" and not self.store.startswith("s3://"):
                raise ValueError(
                    f"{role}.images is 'url', but the store {self.store!r} is a folder, which has no URLs that a model "
                    "could read: set it to data, or store to s3://bucket/prefix"
                )
        if self.vote.quorum > len(self.judges):
            raise ValueError(f"vote.quorum is {self.vote.quorum}, but there are {len(self.judges)} judges: lower it")
        if any(judge.name == self.teacher.name and judge != self.teacher for judge in self.judges):
            raise ValueError(f"teacher and a judge are both named {self.teacher.name!r}, but differ: rename one")
        if self.write.answers > 1 and not self.vote.show_answer:
            raise ValueError("write.answers are judged by what they say: set vote.show_answer, or leave answers at 1")
        if self.vote.planted and not self.vote.show_answer:
            raise ValueError("vote.planted plants wrong answers: set vote.show_answer, or leave it out")
        if (blind := self.vote.blind) and any(m.name == blind.model.name for m in (self.teacher, *self.judges)):
            raise ValueError(f"vote.blind.model is named {blind.model.name!r} as another model is: rename it")
        self._targets_can_be_met()
        if self.write.fused and set(self.filter.context) != set(self.write.context):
            # One request shows one context, and what is shown is part of what each of them asks.
            raise ValueError("write.fused asks in the filter's request: set filter.context and write.context alike")
        if self.release.validation + self.release.test >= 1:
            raise ValueError("release.validation and release.test leave nothing to train on: lower them")
        return self

    def _targets_can_be_met(self) -> None:
        if self.targets is None:
            return
        if self.write.checks and self.write.checks.repeats:
            # Which of two pairs is the repeated one hangs on which are tried, and that again on how many are left.
            raise ValueError("write.checks.repeats cannot be set with targets: leave one of them out")
        if self.write.swapped:
            raise ValueError(
                "write.swapped cannot be set with targets, as it hangs on which images are tried: unset one"
            )
        if self.vote.planted:
            raise ValueError(
                "vote.planted cannot be set with targets, as its errors hang on which images are tried: unset one"
            )
        if self.review.corrections == "judged":  # the votes on them are on no task type's way to its target
            raise ValueError("review.corrections cannot be judged with targets: leave one of them out")
        if self.write.answers > 1:  # a target that has its samples asks nothing more, its questions' answers included
            raise ValueError("write.answers cannot be more than 1 with targets: leave one of them out")
        most = self.write.forms_a_match
        for name, target in self.targets.named.items():
            if target.samples > target.tries * most:
                raise ValueError(
                    f"{name}: {target.tries} tries give {target.tries * most} samples at most, not {target.samples}: "
                    "raise tries or lower samples"
                )

    @property
    def further_prompts(self) -> list[str]:
        """The prompts that are used because of what the settings choose, beside those of question forms."""
        return [*(["answer"] if self.write.answers > 1 else []), *(["blind"] if self.vote.blind else [])]

    @property
    def further_rules(self) -> dict[str, Any]:
        """What else of the settings the data depend on, by name, as far as it is chosen; a release tells it."""
        blind = self.vote.blind
        return {
            **({"write.answers": self.write.answers} if self.write.answers > 1 else {}),
            **({"vote.blind": blind.told} if blind else {}),
            **({"vote.planted": self.vote.planted} if self.vote.planted else {}),
        }

    @property
    def voters(self) -> tuple[Model, ...]:
        """The models of the stage vote: the judges, and the one that answers blind where there is one, the last."""
        return self.judges if self.vote.blind is None else (*self.judges, self.vote.blind.model)

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model that a run asks; one may be there twice."""
        return (self.teacher, *self.voters)

    @property
    def simulated(self) -> bool:
        """Whether any model is simulated. Everything that is made then says so."""
        return any(model.simulated for model in self.models)


def settings_path() -> Path:
    """Where Airflow's workers find the settings: ``TASKGALAXY_SETTINGS``, else taskgalaxy.yaml in AIRFLOW_HOME."""
    airflow_home = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    return Path(os.environ.get("TASKGALAXY_SETTINGS") or airflow_home / "taskgalaxy.yaml")


def airflow_settings() -> AirflowSettings:
    """The Airflow settings that DAGs need when they are parsed; the defaults if the file is missing or wrong.

    The DAG then still appears in Airflow, and its task, which reads the same file, reports what is wrong with it.
    """
    settings = _settings_or_none()
    return settings.airflow if settings else AirflowSettings()


def finetune_settings() -> FinetuneSettings:
    """The fine-tuning settings that DAGs need when they are parsed; the defaults if the file is missing or wrong."""
    settings = _settings_or_none()
    return settings.finetune if settings else FinetuneSettings()


def release_settings() -> ReleaseSettings:
    """What a release holds, as the forms show it; the defaults if the file is missing or wrong."""
    settings = _settings_or_none()
    return settings.release if settings else ReleaseSettings()


def offered_forms() -> list[str]:
    """The question forms that the forms offer to choose from: all that there are, and those that the settings write in
    other languages than English; none of these if the file is missing or wrong."""
    known, settings = QUESTION_FORMS.names(), _settings_or_none()
    return [*known, *sorted(set(settings.write.variants if settings else ()) - set(known))]


def _settings_or_none() -> Settings | None:
    try:
        return load_settings(settings_path())
    except SettingsError:
        return None


def compose_yaml(text: str) -> yaml.Node | None:
    """The tree of a YAML text, with the place of each node. Raises yaml.YAMLError.

    By libyaml, where PyYAML has it, which is ten times as fast; what is wrong, PyYAML's own parser says best.
    """
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    return root


def _refuse_twins(root: yaml.Node) -> None:
    """Raises yaml.YAMLError where a field occurs twice; YAML itself would silently use the second."""
    left, known = [root], set()
    while left:
        node = left.pop()
        if id(node) in known:  # an alias may contain itself
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            left += [value for _, value in node.value]
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        problem = f"{key.value!r} is there twice: remove one"
                        raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
                    seen.add(key.value)


def _yaml(text: str) -> Any:
    root = compose_yaml(text)
    if root is None:
        return None
    _refuse_twins(root)
    return yaml.constructor.SafeConstructor().construct_document(root)


def load_settings(path: Path, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a YAML file; ``overrides`` replaces whole top-level fields. Raises SettingsError."""
    return parse_settings({**read_yaml(path, "settings"), **(overrides or {})}, str(path))


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The fields of a YAML file; ``what`` names the kind of file in messages. Raises SettingsError."""
    try:
        raw = _yaml(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise SettingsError(f"{what} {path}: no such file. `taskgalaxy settings` prints one to start from.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or no such date
        raise SettingsError(f"{what} {path}: cannot be read as YAML ({error}).") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{what} {path}: must be `field: value` lines, not a {type(raw).__name__}.")
    return raw


def parse_settings(raw: Mapping[str, Any], where: str = "settings") -> Settings:
    """Settings from JSON-like values. Raises SettingsError, which names each wrong field, its value and the fix."""
    return validated(Settings, raw, f"settings {where}")
