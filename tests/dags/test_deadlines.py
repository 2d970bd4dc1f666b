"""Deadlines of runs: what the settings say, whom a late run is told to, and what its note says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dags.bag import bag, fresh
from dags.test_notes import note_of
from taskgalaxy_ops.demo.airflow_stack import dag_ids
from taskgalaxy_ops.settings import DeadlineHours, Settings

DUE = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
RUN = {"dag_id": "galaxy_generate", "dag_run_id": "manual__1", "partition_key": "photos", "conf": {}, "end_date": None}


def test_the_settings_name_every_dag() -> None:
    assert sorted(f"galaxy_{name}" for name in DeadlineHours.model_fields) == dag_ids()


def test_no_dag_has_a_deadline_unless_the_settings_give_it_one() -> None:
    assert [name for name, dag in bag().dags.items() if dag.deadline] == []


@pytest.mark.parametrize(
    ("change", "now", "said"),
    [
        (
            {},
            timedelta(seconds=5),
            "TaskGalaxy: galaxy_generate (source photos) is late in run manual__1: it had not ended 1.5 h after it was "
            "queued (due 2026-03-04 05:06 UTC, 0:00:05 ago)",
        ),
        ({"partition_key": None}, timedelta(days=1, hours=2), "galaxy_generate is late in run manual__1: it had not"),
        ({"partition_key": None}, timedelta(days=1, hours=2), "(due 2026-03-04 05:06 UTC, 1 day, 2:00:00 ago)"),
        ({"partition_key": "a\n" * 500}, timedelta(seconds=-1), "a a a) is late in run"),
        ({"end_date": "2026-03-04T05:06:01Z"}, timedelta(seconds=5), "it had not ended"),
    ],
)
def test_the_alert_says_which_run_is_late_of_what_and_by_how_much(
    change: dict[str, Any], now: timedelta, said: str
) -> None:
    from galaxy_airflow.alerts import late_message

    for due in (DUE, DUE.isoformat()):  # as Airflow hands it on, or as JSON
        text = late_message(1.5, {"dag_run": {**RUN, **change}, "deadline": {"deadline_time": due}}, DUE + now)
        assert said in text
        assert len(text) < 500
        assert "\n" not in text


def test_a_run_that_failed_before_its_deadline_was_told_of_already() -> None:
    from galaxy_airflow.alerts import late_message

    run = {**RUN, "end_date": "2026-03-04T05:05:59Z"}
    assert late_message(1, {"dag_run": run, "deadline": {"deadline_time": DUE}}, DUE) == ""


class Late:
    """A run in Airflow's database, with the deadline that the scheduler gave it."""

    def __init__(self, session: Any, run: Any) -> None:
        from airflow.models.deadline import Deadline
        from sqlalchemy import select

        self.session, self.run = session, run
        self.deadline = session.scalars(select(Deadline).where(Deadline.dagrun_id == run.id)).one()

    def missed(self) -> list[dict[str, Any]]:
        """Its time is over: as the scheduler notices it. What Airflow's triggerer then reports of the callback."""
        self.deadline.deadline_time = datetime.now(UTC) - timedelta(seconds=90)
        self.session.flush()
        self.deadline.handle_miss(self.session)
        self.session.commit()
        trigger = self.deadline.callback.trigger
        module, _, name = trigger.classpath.rpartition(".")
        made = getattr(__import__(module, fromlist=[name]), name)(**trigger.kwargs)

        async def events() -> list[dict[str, Any]]:
            return [event.payload async for event in made.run()]

        return asyncio.run(events())


@pytest.fixture
def late(
    database: Any,
    settings_of: Callable[..., Settings],
    hook: tuple[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Late]:
    """A run of galaxy_generate that is due two hours after it was queued; alerts go to the webhook."""
    bag()  # puts the plugins on the path
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.deadline import Deadline
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from sqlalchemy import event

    import galaxy_defaults
    from galaxy_airflow import notes

    monkeypatch.setenv("AIRFLOW_CONN_GALAXY_ALERTS", json.dumps({"conn_type": "http", "host": hook[0]}))
    settings = settings_of(airflow={"deadline_hours": {"generate": 2}, "notify": {"by": "webhook"}})
    monkeypatch.setattr(galaxy_defaults, "SETTINGS", settings.airflow)
    assert [name for name, dag in fresh().dags.items() if dag.deadline] == ["galaxy_generate"]
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    (bundle,) = [each for each in manager.get_all_dag_bundles() if each.name == "galaxy_generate"]
    bundle.initialize()
    found = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    sync_bag_to_db(found, bundle.name, bundle.version)
    notes.keep_lateness()
    with create_session(scoped=False) as session:  # its own: others end while the test uses it
        dag = SerializedDagModel.get_dag("galaxy_generate", session=session)
        assert dag is not None
        run = dag.create_dagrun(
            run_id=f"manual__{datetime.now(UTC).isoformat()}",
            run_after=datetime.now(UTC),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.QUEUED,
            partition_key="photos",
            session=session,
        )
        session.commit()
        yield Late(session, run)
    event.remove(Deadline, "after_update", notes.missed)


def test_a_late_run_is_told_to_the_webhook_and_in_its_note(late: Late, hook: tuple[str, list[dict[str, Any]]]) -> None:
    assert late.deadline.deadline_time == late.run.queued_at + timedelta(hours=2)
    assert note_of("galaxy_generate") == ("", None)
    events = late.missed()
    assert [event["state"] for event in events] == ["running", "success"]
    (told,) = hook[1]
    assert told["text"].startswith(f"TaskGalaxy: galaxy_generate (source photos) is late in run {late.run.run_id}: ")
    assert "it had not ended 2 h after it was queued" in told["text"]
    assert note_of("galaxy_generate") == (
        f"source photos\n\nlate: was due {late.deadline.deadline_time:%Y-%m-%d %H:%M} UTC",
        None,
    )


def test_of_a_run_that_has_failed_nothing_is_said(late: Late, hook: tuple[str, list[dict[str, Any]]]) -> None:
    late.run.state = "failed"
    late.run.end_date = datetime.now(UTC) - timedelta(minutes=5)
    assert [event["state"] for event in late.missed()] == ["running", "success"]
    assert hook[1] == []
    assert "late" not in note_of("galaxy_generate")[0]


def test_tasks_of_a_run_that_has_a_deadline_can_be_cleared(late: Late) -> None:
    """With Airflow's own ``DAGRUN_QUEUED_AT``, clearing raises."""
    from airflow.models.taskinstance import clear_task_instances

    due, queued = late.deadline.deadline_time, late.run.queued_at
    clear_task_instances(late.run.task_instances, late.session)
    late.session.flush()
    assert late.run.queued_at > queued
    assert late.deadline.deadline_time == due
