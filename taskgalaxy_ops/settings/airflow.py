"""Settings of Airflow: lanes, schedules, pools, retries, alerts."""

from __future__ import annotations

from typing import Literal

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
