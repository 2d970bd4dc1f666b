"""Settings of fine-tuning and evaluation: recipe, backend, folders, lmms-eval."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from taskgalaxy_ops.settings.base import Strict


class CommandSettings(Strict):
    """Commands of a scheduler of the user's own. Each is a list of arguments, never a line for a shell.

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
    node_selector: dict[str, str] = Field({})
    service_account: str | None = None


class LmmsSettings(Strict):
    """lmms-eval, the harness of the public benchmarks, which has a Python of its own. See docs/benchmarks.md."""

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
    """How a release is given to a trainer, and what its checkpoint is scored on."""

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
