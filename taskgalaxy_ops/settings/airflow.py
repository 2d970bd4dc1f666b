"""Settings of Airflow: lanes, schedules, pools, retries, alerts, deadlines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from taskgalaxy_ops.settings.base import Cron, Strict


class Schedules(Strict):
    """When DAGs start by themselves (cron, UTC; null: only by hand, or when a source is announced)."""

    watch: Cron | None = "*/30 * * * *"
    taxonomy: Cron | None = None
    release: Cron | None = None
    upkeep: Cron | None = "@weekly"


class PoolSlots(Strict):
    """How many Airflow tasks of a kind run at once, over all DAGs and workers; a task sends many requests at once."""

    encoders: int = Field(2, ge=1, description="tasks that embed: as many as GPUs, say")
    teacher: int = Field(16, ge=1, description="tasks that ask the teacher")
    judges: int = Field(16, ge=1, description="tasks that ask the judges")
    store: int = Field(8, ge=1, description="tasks that only read and write the store")


class NotifySettings(Strict):
    """Who is told of a failed task, and how."""

    by: Literal["log", "webhook", "email", "slack"] = "log"
    connection: str = Field("galaxy_alerts", min_length=1, description="Airflow connection of webhook, SMTP or Slack")
    to: tuple[str, ...] = Field((), description="e-mail addresses, or one Slack channel")

    @model_validator(mode="after")
    def _addressed(self) -> NotifySettings:
        if self.by in {"email", "slack"} and not self.to:
            raise ValueError(f"airflow.notify.to is empty, but alerts go by {self.by}: name who gets them")
        return self


Hours = Annotated[float, Field(gt=0, le=8760)]  # a year at most


class DeadlineHours(Strict):
    """By DAG: how many hours after it was queued a run that has not ended is late (null: never)."""

    backfill: Hours | None = None
    doctor: Hours | None = None
    finetune: Hours | None = None
    generate: Hours | None = None
    ingest: Hours | None = None
    release: Hours | None = None
    taxonomy: Hours | None = None
    upkeep: Hours | None = None
    watch: Hours | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_dag(cls, raw: Any) -> Any:
        dags = ", ".join(cls.model_fields)
        if isinstance(raw, int | float | str):
            raise ValueError(f"{raw!r} does not say for which DAG: write {{generate: {raw}}} (the DAGs are {dags})")
        unknown = [repr(name) for name in raw if name not in cls.model_fields] if isinstance(raw, dict) else []
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no DAG: name one of {dags}, without galaxy_")
        return raw


class AirflowSettings(Strict):
    """How Airflow runs the pipeline. These settings change no data."""

    lanes: int = Field(16, ge=1, le=1024, description="groups of image shards that a run works on side by side")
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
    deadline_hours: DeadlineHours = Field(
        DeadlineHours(),
        description="by DAG: hours after which a run that has not ended is told as late",
        exclude_if=lambda hours: hours == DeadlineHours(),  # settings that have none keep the hash that they had before
    )
