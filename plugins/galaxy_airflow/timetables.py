"""Schedules that Airflow lacks: by hand or by cron with partitions named by tasks, and by announcements or cron."""

from __future__ import annotations

from typing import Any

from airflow.partition_mappers.fixed_key import FixedKeyMapper
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.simple import PartitionedAssetTimetable, PartitionedAtRuntime
from airflow.timetables.trigger import CronTriggerTimetable


class ByHand(PartitionedAtRuntime):
    """Started only by the form or the REST API; the run's tasks name the partitions (sources) that it announces."""

    description = "By hand"

    @property
    def summary(self) -> str:
        return "By hand"


class CronWithRuntimePartitions(CronTriggerTimetable):
    """Started by cron; the run's tasks name the partitions (sources) that it announces."""

    partitioned_at_runtime = True


class PartitionsOrCron(PartitionedAssetTimetable):
    """Started by cron, and when a partition of an asset is announced: one run for all partitions announced meanwhile.

    A run has the fixed partition key ``all``. Airflow's own ``AssetOrTimeSchedule`` does not support partitions.
    """

    KEY = "all"

    def __init__(self, *, assets: Any, cron: str) -> None:
        super().__init__(assets=assets, default_partition_mapper=FixedKeyMapper(self.KEY))
        self._cron_text = cron
        self._cron = CronTriggerTimetable(cron, timezone="UTC")
        self.can_be_scheduled = True
        self.periodic = True
        self.description = f"Announced, or {self._cron.description}"

    @property
    def summary(self) -> str:
        return f"Partitioned Asset or {self._cron_text}"

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        cron_run = self._cron.next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        if cron_run is None:
            return None
        return DagRunInfo(
            run_after=cron_run.run_after,
            data_interval=cron_run.data_interval,
            partition_date=None,
            partition_key=self.KEY,
        )

    def serialize(self) -> dict[str, Any]:
        from airflow.serialization.encoders import encode_asset_like

        return {"asset_condition": encode_asset_like(self.asset_condition), "cron": self._cron_text}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> PartitionsOrCron:
        from airflow.serialization.decoders import decode_asset_like

        return cls(assets=decode_asset_like(data["asset_condition"]), cron=data["cron"])
