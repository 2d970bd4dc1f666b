"""The notes of runs: what they are of, and what their tasks say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dags.bag import bag
from dags.test_runs import ingested, run
from taskgalaxy_ops.settings import Settings


@pytest.fixture
def notes() -> Any:
    bag()  # puts the plugins on the path
    from galaxy_airflow import notes

    return notes


@pytest.mark.parametrize(
    ("dag", "partition", "form", "of"),
    [
        ("galaxy_generate", "photos", {}, "source photos"),
        ("galaxy_generate", None, {"source": "photos"}, "source photos"),
        ("galaxy_ingest", None, {"name": "*", "location": "/data"}, "each folder below /data"),
        ("galaxy_ingest", None, {"name": "photos", "location": "/x"}, "source photos"),
        ("galaxy_backfill", None, {"sources": ["a", "b"]}, "sources a, b"),
        ("galaxy_backfill", None, {"sources": None}, ""),
        ("galaxy_release", "all", {}, ""),
        ("galaxy_finetune", "v000001", None, "release v000001"),
        ("galaxy_finetune", None, {"release": "v000002"}, "release v000002"),
    ],
)
def test_a_run_tells_what_it_is_of(notes: Any, dag: str, partition: str | None, form: Any, of: str) -> None:
    assert notes.about(dag, partition, form) == of


def test_what_several_lanes_say_is_said_once(notes: Any) -> None:
    said = [("lane_of_shards.filter", 0, "no reply"), ("lane_of_shards.filter", 1, "no reply"), ("complete", -1, "red")]
    assert notes.composed("source a", said) == "source a\n\nfilter 1, filter 2: no reply\n\ncomplete: red"
    assert len(notes.composed("source a", [("t", -1, "x" * 5000)])) == 1000


@pytest.fixture
def kept(database: Path, notes: Any) -> Iterator[None]:
    """As in the API server: what tasks say becomes the run's note."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import event

    if not event.contains(XComModel, "after_insert", notes.said):
        notes.keep_notes()
    yield
    event.remove(XComModel, "after_insert", notes.said)


def note_of(dag: str) -> tuple[str, str | None]:
    """The note of a DAG's latest run, and who wrote it."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id == dag).order_by(DagRun.id.desc())).first()
        return found.note or "", found.dag_run_note.user_id if found.dag_run_note else None


@pytest.mark.usefixtures("kept")
def test_a_run_that_fails_says_why_in_its_note(settings_of: Callable[..., Settings], pictures: Path) -> None:
    settings_of(budget={"max_calls": 2})
    ingested("mine", pictures / "shapes")
    assert note_of("galaxy_ingest") == ("", None)  # nothing is said; the scheduler writes of what it is
    assert run("galaxy_generate", source="mine")[""] == "failed"
    note, who = note_of("galaxy_generate")
    assert who is None
    assert re.match(r"source mine\n\nfilter [12]: mine, filter: ", note)  # the lanes share a budget of two calls
    assert "units have no answer yet" in note
    assert run("galaxy_release")[""] == "failed"
    assert "release: " in note_of("galaxy_release")[0]


@pytest.mark.usefixtures("kept")
def test_a_note_that_a_person_wrote_is_left_alone(settings_of: Callable[..., Settings], notes: Any) -> None:
    from airflow.models.dagrun import DagRun, DagRunNote
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    settings_of()
    assert run("galaxy_ingest", name="x", location="/no/such/folder")["register[0]"] == "failed"
    assert "is no folder" in note_of("galaxy_ingest")[0]
    with create_session() as session:
        number = session.scalars(select(DagRun.id).where(DagRun.dag_id == "galaxy_ingest").order_by(DagRun.id)).all()[
            -1
        ]
        session.execute(update(DagRunNote).where(DagRunNote.dag_run_id == number).values(user_id="me", content="mine"))
    with create_session() as session:
        notes.write_safely(session.connection(), number)
    assert note_of("galaxy_ingest") == ("mine", "me")
