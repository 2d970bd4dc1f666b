"""Schedules that Airflow lacks, each described in words: by hand or by cron with partitions named by tasks, and by
announcements, with or without cron."""

from __future__ import annotations

from typing import Any

from airflow.partition_mappers.fixed_key import FixedKeyMapper
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.simple import NullTimetable, PartitionedAssetTimetable
from airflow.timetables.trigger import CronTriggerTimetable


class ByHand(NullTimetable):
    """Started only by the form or the REST API."""

    description = "By hand"

    @property
    def summary(self) -> str:
        return self.description


class ByHandWithRuntimePartitions(ByHand):
    """As `ByHand`; the run's tasks name the partitions (sources) that it announces."""

    partitioned_at_runtime = True


class Cron(CronTriggerTimetable):
    """Started by cron."""

    @property
    def summary(self) -> str:
        return self.description or super().summary  # an expression that cannot be described


class CronWithRuntimePartitions(Cron):
    """As `Cron`; the run's tasks name the partitions (sources) that it announces."""

    partitioned_at_runtime = True


class Announced(PartitionedAssetTimetable):
    """Started when partitions of an asset are announced, and by cron, if one is given.

    together: one run, with the partition key ``all``, for all partitions that were announced meanwhile; else each has a
    run of its own. Airflow's ``AssetOrTimeSchedule`` does not support partitions.
    """

    KEY = "all"

    def __init__(self, *, assets: Any, what: str, together: bool = False, cron: str | None = None) -> None:
        super().__init__(assets=assets, **({"default_partition_mapper": FixedKeyMapper(self.KEY)} if together else {}))
        self._options = {"what": what, "together": together, "cron": cron}
        self._cron = CronTriggerTimetable(cron, timezone="UTC") if cron else None
        self.description = f"When {what} announced" + (f", or: {self._cron.description}" if self._cron else "")
        if self._cron:
            self.can_be_scheduled = True
            self.periodic = True

    @property
    def summary(self) -> str:
        return self.description

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        limits = {"last_automated_data_interval": last_automated_data_interval, "restriction": restriction}
        if self._cron is None:
            return super().next_dagrun_info(**limits)
        if (cron_run := self._cron.next_dagrun_info(**limits)) is None:
            return None
        return DagRunInfo(
            run_after=cron_run.run_after,
            data_interval=cron_run.data_interval,
            partition_date=None,
            partition_key=self.KEY,
        )

    def serialize(self) -> dict[str, Any]:
        from airflow.serialization.encoders import encode_asset_like

        return {"assets": encode_asset_like(self.asset_condition), **self._options}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Announced:
        from airflow.serialization.decoders import decode_asset_like

        return cls(**{**data, "assets": decode_asset_like(data["assets"])})
