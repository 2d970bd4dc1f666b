"""Everything configurable, validated once, at the edge, with messages that name the field, the value and the fix.

A settings file is YAML; what it leaves out takes the defaults here. Keys (secrets) are never settings: a model names
the environment variable that holds its key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from taskgalaxy_ops.errors import SettingsError

EXAMPLE = Path(__file__).with_name("example.yaml")  # what `taskgalaxy settings` prints

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
Variant = Literal["plain", "chain_of_thought"]
Cron = Annotated[str, Field(pattern=r"^(@(hourly|daily|weekly|monthly)|\S+ \S+ \S+ \S+ \S+)$")]


class Strict(BaseModel):
    """Base of all that a user writes in YAML: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class S3Settings(Strict):
    """Where S3 is; keys come from AWS's own environment variables or files."""

    endpoint_url: str | None = Field(None, description="another service than AWS, e.g. http://127.0.0.1:8333")
    region: str | None = None


class SourceSettings(Strict):
    """A named collection of images."""

    location: str = Field(description="a folder, s3://bucket/prefix, or builtin:photos|documents|shapes|openclipart")
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
    limit: int | None = Field(None, ge=1, description="at most this many files, in order of name")
    licence: str | None = None
    attribution: str | None = None


class IngestSettings(Strict):
    """What an image must be, and how many make a shard."""

    max_pixels: int = Field(50_000_000, ge=1, description="pixels, width times height")
    min_side: int = Field(32, ge=1, description="pixels, the shorter side")
    shard_images: int = Field(512, ge=1, le=100_000, description="images a shard; fixed once it is cut")


class EncoderSettings(Strict):
    """What places images and task types in one space."""

    name: Literal["conse", "open_clip"] = "conse"
    model: str | None = Field(None, description="open_clip model, e.g. ViT-L-14, or hf-hub:…")
    pretrained: str | None = Field(None, description="open_clip tag, e.g. openai, or a checkpoint file")


class MatchSettings(Strict):
    """How many task types an image is matched with."""

    k: int = Field(10, ge=1, le=1000)


class Price(Strict):
    """USD a million tokens."""

    input: float = Field(0.0, ge=0, description="images' tokens included")
    output: float = Field(0.0, ge=0, description="reasoning included")
    cached: float | None = Field(None, ge=0, description="input that the provider had in its cache; null: as any input")
    batch_discount: float = Field(0.5, ge=0, le=1, description="what a batch takes off")


class InProcessSettings(Strict):
    """How a model without a server is loaded and asked; changes no data."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|spread|cpu|mps|cuda(:\d+)?)$",
        description="auto: a GPU if there is one; spread: over all GPUs",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="auto: as the weights are")
    batch: int = Field(8, ge=1, le=512, description="requests answered together; halved where memory runs out")
    wait_seconds: float = Field(0.05, ge=0, le=10, description="the longest that a batch waits to be filled")
    trust_remote_code: bool = Field(False, description="runs Python that comes with the weights")


IN_PROCESS = "transformers:"


class Model(Strict):
    """A chat model behind an OpenAI-compatible URL, or in this process."""

    name: Name = Field(description="how the data call it")
    base_url: str = Field(
        pattern=rf"^(https?://|{IN_PROCESS})", description="e.g. https://api.openai.com/v1, or transformers:hub/id"
    )
    model: str = Field(min_length=1)
    revision: str | None = Field(
        None, description="change it when the weights behind the name changed; of a hub's model in process: its commit"
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY", pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable that holds the key"
    )
    price: Price | None = Field(
        None, description="null: as the provider lists it; nothing where the model is simulated or of your own network"
    )
    list_price: Price | None = Field(None, description="what the same tokens cost elsewhere; for comparison only")
    temperature: float | None = Field(0.0, ge=0, le=2, description="null: not sent; some models take none")
    max_tokens: int = Field(2000, ge=16)
    room_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="the name under which max_tokens is sent; newer OpenAI models take the other"
    )
    concurrency: int = Field(
        64, ge=1, le=1024, description="requests in flight at most, of all workers together; fewer where it says 429"
    )
    requests_a_minute: float | None = Field(None, gt=0, description="null: what the provider lets through")
    tokens_a_minute: float | None = Field(None, gt=0, description="null: what the provider lets through")
    timeout_seconds: float = Field(120.0, gt=0, description="for a reply of max_tokens; longer for one with more room")
    retries: int = Field(6, ge=0, description="further tries after 429, 5xx and time-outs")
    repairs: int = Field(3, ge=0, description="further tries after a malformed reply")
    structured: Literal["json_schema", "json_object", "text"] = "json_schema"
    mode: Literal["chat", "batch"] = Field(
        "chat", description="batch: through the provider's Batch API, within a day and for less"
    )
    image_side: int = Field(1024, ge=64, le=8192, description="pixels, the longer side, as sent")
    image_quality: int = Field(90, ge=1, le=100, description="JPEG quality, as sent")
    images: Literal["data", "url"] = Field(
        "data", description="how images are sent: in the request itself, or by a signed URL of the store in S3"
    )
    image_url_hours: float = Field(24.0, ge=1, le=168, description="how long such a URL can be read")
    simulated: bool = False
    in_process: InProcessSettings | None = Field(None, description="of a base_url transformers:…; null: the defaults")

    @model_validator(mode="after")
    def _placed(self) -> Model:
        weights = self.weights
        if weights is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?|(~|\.{0,2}/).*", weights):
            raise ValueError(
                f"base_url {self.base_url!r} names neither a hub's model nor a folder: write {IN_PROCESS}owner/name, "
                f"or {IN_PROCESS}/path/to/folder"
            )
        if weights is not None and self.mode == "batch":
            raise ValueError("mode: batch is for a model behind a URL (in process requests are batched anyway)")
        if weights is None and self.in_process is not None:
            raise ValueError(f"in_process is for a base_url that begins with {IN_PROCESS} (remove one of them)")
        if weights is not None and self.images == "url":
            raise ValueError("images is 'url', which weights in this process cannot read: set images to data")
        return self

    @property
    def weights(self) -> str | None:
        """Hub id or folder of a model that runs in this process; None for one behind a URL."""
        return self.base_url.removeprefix(IN_PROCESS) if self.base_url.startswith(IN_PROCESS) else None


class TaxonomySettings(Strict):
    """Seeds and how they grow."""

    seeds: str | None = Field(None, description="a YAML file of your own; default: the package's")
    near_duplicate: float = Field(0.93, gt=0, le=1, description="cosine from which a new label is another's twin")
    children: int = Field(12, ge=1, le=200, description="labels asked for in one request")
    approval: Literal["required", "by_rule", "off"] = Field(
        "required", description="who lets a proposed version be published: a person; the rule below, else a person; all"
    )
    approve_up_to: int = Field(20, ge=0, description="by_rule: a proposal of at most this many nodes needs no person")
    scheduled_new: int = Field(40, ge=1, description="nodes that a scheduled growth adds at most")
    scheduled_images_a_type: float = Field(
        5.0, ge=0, description="a scheduled growth looks only below nodes with this many fitting images a task type"
    )


class WriteSettings(Strict):
    """What the teacher writes for each fitting pair."""

    variants: tuple[Variant, ...] = Field(("plain",), min_length=1)


class VoteSettings(Strict):
    """When a pair becomes a sample."""

    quorum: int = Field(2, ge=1)
    show_answer: bool = True
    audit_share: float = Field(0.1, ge=0, le=1, description="share of pairs, by hash, that every judge sees")


class CapSettings(Strict):
    """The most that may be spent; null: no cap."""

    max_cost: float | None = Field(None, ge=0, description="USD")
    max_calls: int | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=0, description="input and output")


class BudgetSettings(CapSettings):
    """The most that a store may spend, over its lifetime; and what a part of it may."""

    max_cost: float | None = Field(5.0, ge=0, description="USD")
    max_calls: int | None = Field(5000, ge=0)
    run: CapSettings = Field(CapSettings(), description="one command, or one run of a DAG with all its lanes")
    day: CapSettings = Field(CapSettings(), description="any day, in UTC")
    sources: dict[Name, CapSettings] = Field({}, description="what is asked about images that it brought first")

    @property
    def counts_money(self) -> bool:
        """Whether any of its caps is on money."""
        return any(caps.max_cost is not None for caps in (self, self.run, self.day, *self.sources.values()))


class ReleaseSettings(Strict):
    """What a release holds."""

    cap: int | None = Field(None, ge=1, description="samples a task type")
    validation: float = Field(0.05, ge=0, lt=1, description="share of images")
    test: float = Field(0.05, ge=0, lt=1, description="share of images")
    copy_images_up_to: int = Field(2_000_000_000, ge=0, description="bytes; beyond it images are referred to")
    near_duplicate_bits: int = Field(0, ge=-1, le=32, description="perceptual-hash distance; -1: keep all")
    variants: tuple[Variant, ...] | None = Field(None, min_length=1, description="only these; null: all")


class BatchSettings(Strict):
    """How models of ``mode: batch`` are asked."""

    wait_seconds: float | None = Field(
        None,
        ge=0,
        description="how long a run waits for batches, which the next one collects; null: until they end "
        "(in Airflow, airflow.lane_hours at most)",
    )
    poll_seconds: float = Field(30.0, gt=0, description="between two looks at a batch; in Airflow, 10 at least")
    lookup_seconds: float = Field(
        600.0,
        ge=0,
        description="how long a batch that was about to be made when its worker died is looked for in the provider's "
        "list, before it is made anew; longer than a list lags",
    )
    max_requests: int = Field(5000, ge=1, le=50_000, description="of one batch")
    max_bytes: int = Field(64_000_000, ge=1000, le=200_000_000, description="of one batch; it is built in memory")


class RunSettings(Strict):
    """How a run works; changes no data."""

    units_a_request: int = Field(16, ge=1, le=200)
    lease_seconds: float = Field(60.0, ge=3)
    homes_at_once: int = Field(4, ge=1, le=64)
    block_calls: int = Field(32, ge=1, description="calls taken from the budget at once")
    batch: BatchSettings = BatchSettings()


class Schedules(Strict):
    """When DAGs start by themselves (cron, UTC; null: only by hand or when something is announced)."""

    watch: Cron | None = "*/30 * * * *"
    taxonomy: Cron | None = None
    release: Cron | None = None
    upkeep: Cron | None = "@weekly"


class PoolSlots(Strict):
    """How many Airflow tasks of a kind run at once, over all DAGs and workers; a task asks with many requests."""

    encoders: int = Field(2, ge=1, description="tasks that embed: as many as GPUs, say")
    teacher: int = Field(16, ge=1, description="tasks that ask the teacher")
    judges: int = Field(16, ge=1, description="tasks that ask the judges")
    store: int = Field(8, ge=1, description="tasks that only read and write the store")


class NotifySettings(Strict):
    """Who hears of a failed task."""

    by: Literal["log", "webhook", "email", "slack"] = "log"
    connection: str = Field("galaxy_alerts", min_length=1, description="Airflow connection of webhook, SMTP or Slack")
    to: tuple[str, ...] = Field((), description="e-mail addresses, or one Slack channel")

    @model_validator(mode="after")
    def _addressed(self) -> NotifySettings:
        if self.by in {"email", "slack"} and not self.to:
            raise ValueError(f"airflow.notify.to is empty, but alerts go by {self.by}: name who gets them")
        return self


class AirflowSettings(Strict):
    """How Airflow runs the pipeline; changes no data."""

    lanes: int = Field(16, ge=1, le=1024, description="groups of shards that a generate run works on side by side")
    schedules: Schedules = Schedules()
    watch_parents: tuple[str, ...] = Field(
        (), description="folders or s3://bucket/prefix whose direct subfolders each are a source of that name"
    )
    wait_hours: float = Field(72.0, gt=0, description="how long a release waits for a source that was announced")
    finetune_on_release: bool = Field(False, description="galaxy_finetune starts by itself when a release is made")
    pools: PoolSlots = PoolSlots()
    retries: int = Field(5, ge=0, description="tries after the first, where trying again can help")
    retry_seconds: float = Field(60.0, gt=0, description="before the first retry; doubled each time, up to an hour")
    lane_hours: float = Field(168.0, gt=0, description="the longest that a lane may work on one stage")
    notify: NotifySettings = NotifySettings()


class CommandSettings(Strict):
    """A scheduler of the user's own. Each is an argument list, never a shell's line.

    Placeholders: {script} and {folder} (the job's run.sh and folder), {name} (taskgalaxy- and 16 hex digits), {key},
    {devices}, and, once it is submitted, {handle}.
    """

    submit: tuple[str, ...] = Field(min_length=1, description="e.g. [sbatch, --parsable, -J, '{name}', '{script}']")
    handle: str = Field(r"(\d+)", description="what of submit's output names the job: a pattern with one group")
    find: tuple[str, ...] = Field((), description="prints the handle of the job of this name: squeue -h -n '{name}' …")
    status: tuple[str, ...] = Field(min_length=1, description="e.g. [squeue, -h, -o, '%T', -j, '{handle}']")
    running: tuple[str, ...] = Field(
        ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"), description="words of a job that goes on"
    )
    cancel: tuple[str, ...] = Field(min_length=1, description="e.g. [scancel, '{handle}']")


class KubernetesSettings(Strict):
    """Where a training Job runs in a cluster."""

    connection: str = Field("kubernetes_default", min_length=1, description="Airflow connection of the cluster")
    namespace: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    image: str = Field(pattern=r"@sha256:[0-9a-f]{64}$", description="by digest, since it decides what comes out")
    claim: str = Field(min_length=1, description="volume claim that holds finetune.folder; mounted at the same path")
    cpus: int = Field(16, ge=1)
    memory_gib: int = Field(128, ge=1)
    node_selector: dict[str, str] = {}
    service_account: str | None = None


class LmmsSettings(Strict):
    """lmms-eval, the harness of the public benchmarks; it has a Python of its own. docs/benchmarks.md."""

    python: str = Field(min_length=1, description="the interpreter that has lmms-eval")
    adapter: str = Field("llava_hf", pattern="^[a-z0-9_]+$", description="lmms-eval's name of the model's kind")
    limit: int | None = Field(None, ge=1, description="questions a benchmark, for a trial")
    cpu: bool = Field(False, description="without a GPU")
    judge_url: str = Field("https://api.openai.com/v1", pattern=r"^https?://")
    judge_model: str | None = None
    judge_key_env: str | None = Field(
        None, pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="variable with its key; null: no benchmark that needs one"
    )


class FinetuneSettings(Strict):
    """How a release goes to a trainer, and what its checkpoint is scored on."""

    recipe: str = Field("tiny", min_length=1, description="one that ships, or a YAML file of your own")
    backend: Literal["local", "command", "kubernetes"] = "local"
    folder: str = Field(
        "./finetune", min_length=1, description="where jobs, their data and checkpoints lie; every worker must see it"
    )
    licences: tuple[str, ...] | None = Field(
        None, description="train only if every image has one of these ('unknown': none is stated); null: any"
    )
    poll_seconds: float = Field(15.0, gt=0, description="between two looks at a job")
    hours: float = Field(96.0, gt=0, description="from its submission; a job that takes longer is cancelled")
    questions: int = Field(300, ge=30, description="of each benchmark, at most")
    command: CommandSettings | None = None
    kubernetes: KubernetesSettings | None = None
    lmms: LmmsSettings | None = None

    @model_validator(mode="after")
    def _told_how(self) -> FinetuneSettings:
        if self.backend != "local" and getattr(self, self.backend) is None:
            raise ValueError(f"finetune.backend is {self.backend}: say how, under finetune.{self.backend}")
        return self


class Settings(Strict):
    """All settings of a store."""

    store: str = "file://./galaxy"
    s3: S3Settings = S3Settings()
    sources: dict[Name, SourceSettings] = {}
    ingest: IngestSettings = IngestSettings()
    taxonomy: TaxonomySettings = TaxonomySettings()
    encoder: EncoderSettings = EncoderSettings()
    match: MatchSettings = MatchSettings()
    teacher: Model
    judges: tuple[Model, ...] = Field(min_length=1)
    prompts: dict[Literal["filter", "write_plain", "write_chain_of_thought", "vote", "expand"], str] = Field(
        default={}, description="files of your own, by prompt"
    )
    write: WriteSettings = WriteSettings()
    vote: VoteSettings = VoteSettings()
    budget: BudgetSettings = BudgetSettings()
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
        seen: dict[tuple[object, ...], str] = {}
        for judge in judges:
            asked = (judge.model, judge.revision, judge.temperature, judge.image_side, judge.image_quality)
            if (other := seen.setdefault(asked, judge.name)) != judge.name:
                raise ValueError(
                    f"{other!r} and {judge.name!r} are one judge, since they ask {judge.model!r} the same: its one "
                    "reply would count twice. Give one of them another model, revision or temperature"
                )
        return judges

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        for role, model in [("teacher", self.teacher), *((f"judges.{n}", each) for n, each in enumerate(self.judges))]:
            if model.images == "url" and not self.store.startswith("s3://"):
                raise ValueError(
                    f"{role}.images is 'url', but the store {self.store!r} is a folder, which has no URLs that a model "
                    "could read: set it to data, or store to s3://bucket/prefix"
                )
        if self.vote.quorum > len(self.judges):
            raise ValueError(f"vote.quorum is {self.vote.quorum}, but there are {len(self.judges)} judges: lower it")
        if any(judge.name == self.teacher.name and judge != self.teacher for judge in self.judges):
            raise ValueError(f"teacher and a judge are both named {self.teacher.name!r}, but differ: rename one")
        if self.release.validation + self.release.test >= 1:
            raise ValueError("release.validation and release.test leave nothing to train on: lower them")
        return self

    @property
    def simulated(self) -> bool:
        """Whether any model is a simulated one: then everything made says so."""
        return self.teacher.simulated or any(judge.simulated for judge in self.judges)


def settings_path() -> Path:
    """Where Airflow's workers find the settings: ``TASKGALAXY_SETTINGS``, else taskgalaxy.yaml in AIRFLOW_HOME."""
    home = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    return Path(os.environ.get("TASKGALAXY_SETTINGS") or home / "taskgalaxy.yaml")


def airflow_settings() -> AirflowSettings:
    """What DAGs need to know when they are parsed. Where the settings cannot be read, or have mistakes, the defaults.

    A task that runs reads the same file, and says what is wrong with it: a DAG that vanished from the UI could not.
    """
    mounted = _mounted()
    return mounted.airflow if mounted else AirflowSettings()


def finetune_settings() -> FinetuneSettings:
    """The same of what a DAG needs to know about fine-tunes."""
    mounted = _mounted()
    return mounted.finetune if mounted else FinetuneSettings()


def _mounted() -> Settings | None:
    try:
        return load_settings(settings_path())
    except SettingsError:
        return None


def valid_name(name: str) -> bool:
    """Whether a source may be called so: 1 to 100 characters, no slash, backslash or control character."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        return False
    return bool(name.strip())


_OWN_WORDS = {"missing": "is missing: add it", "extra_forbidden": "no such field: remove it or mend its name"}


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which a field that is there twice is a mistake, and not the first one's silent end."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{key.value!r} is there twice: remove one"
                    raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def load_settings(path: Path, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a YAML file, with ``overrides`` of whole top-level fields. Raises SettingsError."""
    return parse_settings({**read_yaml(path, "settings"), **(overrides or {})}, str(path))


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The fields of a YAML file. Raises SettingsError."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except FileNotFoundError as error:
        raise SettingsError(f"{what} {path}: no such file. `taskgalaxy settings` prints one to start from.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or no such date
        raise SettingsError(f"{what} {path}: cannot be read as YAML ({error}).") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{what} {path}: must be `field: value` lines, not a {type(raw).__name__}.")
    return raw


def parse_settings(raw: Mapping[str, Any], where: str = "settings") -> Settings:
    """Settings from plain values. Raises SettingsError that names each wrong field, its value and the fix."""
    return validated(Settings, raw, f"settings {where}")


Validated = TypeVar("Validated", bound=BaseModel)


def validated(kind: type[Validated], raw: Mapping[str, Any], where: str) -> Validated:
    """A record of ``kind`` from plain values. Raises SettingsError that names each wrong field, value and fix."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A list whose items are wrong counts as too short as well: that would only confuse.
        places = [item["loc"] for item in error.errors()]
        errors = [
            item
            for item in error.errors()
            if item["type"] != "too_short" or sum(place[: len(item["loc"])] == item["loc"] for place in places) == 1
        ]
        lines = [f"{where}: {len(errors)} mistake(s)."]
        for item in errors:
            field = ".".join(str(part) for part in item["loc"]) or "(whole file)"
            # A message of our own names its values; an unknown field may hold a secret, and so may one about keys.
            silent = item["type"] in {"missing", "extra_forbidden", "value_error"} or "key" in field
            value = "" if silent else f" is {_shown(item['input'])}"
            message = _OWN_WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
            lines.append(f"  {field}{value}: {message}")
        raise SettingsError("\n".join(lines)) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
