"""What the plugin adds: schedules, alerts that really go out, and the text that a person decides upon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dags.bag import bag
from dags.test_runs import run
from taskgalaxy_ops.operations.proposal_outlook import ProposalOutlook, TypeOutlook
from taskgalaxy_ops.records import LabelReject, Node
from taskgalaxy_ops.reports.pages import proposal as proposal_pages
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.taxonomy.store import Proposal


def test_samples_or_a_cron_start_a_release() -> None:
    """The schedule survives Airflow's database, keeps one run for all partitions, and ticks."""
    import pendulum
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable
    from airflow.timetables.base import TimeRestriction

    bag()  # puts the plugins on the path
    from galaxy_airflow.timetables import Announced
    from galaxy_defaults import SAMPLES

    # Half a day from now: of a time that is just over, Airflow would make up for the run.
    at = pendulum.now("UTC").add(hours=12)
    cron = f"{at.minute} {at.hour} * * *"
    encoded = encode_timetable(Announced(assets=SAMPLES, what="samples are", together=True, cron=cron))
    there: Any = decode_timetable(json.loads(json.dumps(encoded)))
    assert isinstance(there, Announced)
    assert there.partitioned
    assert there.can_be_scheduled
    assert [key.name for key, _ in there.asset_condition.iter_assets()] == ["galaxy_samples"]
    assert there.get_partition_mapper(name="galaxy_samples").to_downstream("photos") == Announced.KEY
    info = there.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(None, None, catchup=False)
    )
    assert info.partition_key == Announced.KEY
    assert (info.run_after.hour, info.run_after.minute) == (at.hour, at.minute)
    assert info.run_after > pendulum.now("UTC")
    assert there.summary.startswith("When samples are announced, or: At ")


def test_every_schedule_is_told_in_words() -> None:
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    told = {}
    for name, dag in bag().dags.items():
        there: Any = decode_timetable(json.loads(json.dumps(encode_timetable(dag.timetable))))
        told[name] = there.summary
    assert told["galaxy_generate"] == "When a source is announced"
    assert told["galaxy_release"] == "When samples are announced"
    assert told["galaxy_ingest"] == told["galaxy_doctor"] == "By hand"
    assert not [words for words in told.values() if "*" in words or "Partition" in words or words == "None"]


@pytest.mark.usefixtures("database")
def test_a_failed_task_is_told_to_the_webhook(
    settings_of: Callable[..., Settings],
    hook: tuple[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, sent = hook
    monkeypatch.setenv("AIRFLOW_CONN_GALAXY_ALERTS", json.dumps({"conn_type": "http", "host": url}))
    settings_of(airflow={"retries": 0, "notify": {"by": "webhook"}})
    assert run("galaxy_ingest", name="{{ conn.galaxy_alerts }}", location="/no/such/folder")["register[0]"] == "failed"
    (told,) = sent
    assert told["text"].startswith("TaskGalaxy: galaxy_ingest.register[0] failed in run manual__")
    assert "source '{{ conn.galaxy_alerts }}': /no/such/folder is no folder" in told["text"]  # text, never a template
    monkeypatch.setenv("AIRFLOW_CONN_GALAXY_ALERTS", json.dumps({"conn_type": "http", "host": "http://127.0.0.1:9"}))
    assert run("galaxy_ingest", name="x", location="/no/such/folder")["register[0]"] == "failed"
    assert "the alert could not be sent by webhook" in caplog.text
    assert "/no/such/folder is no folder" in caplog.text  # the failure's own reason stands


@pytest.mark.parametrize(
    ("by", "module", "cls"), [("email", "smtp", "SmtpNotifier"), ("slack", "slack", "SlackNotifier")]
)
def test_mail_and_slack_go_through_their_providers(
    by: str, module: str, cls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    bag()
    from galaxy_airflow import alerts

    made: list[dict[str, Any]] = []

    class Notifier:
        def __init__(self, **arguments: Any) -> None:
            made.append(arguments)

        def notify(self, context: Any) -> None:
            made[-1]["notified"] = True

    place = importlib.import_module(f"airflow.providers.{module}.notifications.{module}")
    monkeypatch.setattr(place, cls, Notifier)
    chosen = SimpleNamespace(by=by, connection="mine", to=("#alerts",))
    alerts._send(chosen, "<b>broken</b>", {}, "a task failed")
    assert made[0]["notified"]
    assert "mine" in made[0].values()
    assert "<b>" not in made[0].get("html_content", "")


def test_alerts_need_somebody_to_go_to() -> None:
    from taskgalaxy_ops.errors import SettingsError

    raw = {"teacher": {"name": "t", "base_url": "http://x", "model": "t"}, "airflow": {"notify": {"by": "slack"}}}
    judges = [{"name": n, "base_url": "http://x", "model": n} for n in "ab"]
    with pytest.raises(SettingsError, match="name who gets them"):
        parse_settings({**raw, "judges": judges})


HOSTILE = "ocr~<img src=x onerror=alert(1)>~[a](http://evil.example) | `x` {{ conn.galaxy_store }}"


def test_a_proposals_labels_are_text() -> None:
    """A model's words are no HTML, no link and no template, in the form and on the page."""
    node = Node(HOSTILE, 3, "expand", "live")
    twin = LabelReject(HOSTILE, "near-duplicate label", "ocr~<script>", 0.97)
    proposal = Proposal(1, 0, (node,), (node,), (twin,))
    near = TypeOutlook(images=3, nearest=((HOSTILE, 0.9),), siblings=(HOSTILE,))
    outlook = ProposalOutlook(types={HOSTILE: near}, images=5, matched=5)
    shown = proposal_pages.proposal_markdown(proposal, outlook)
    assert "<img" not in shown
    assert "](http" not in shown
    assert "| `x`" not in shown
    page = proposal_pages.proposal_page(proposal, outlook, lambda _: b"", simulated=True)
    assert "<img src=x" not in page
    assert "› <script>" not in page
    assert page.count("<script>") == 1, "ours, that follows Airflow's choice of light or dark"
    assert "SIMULATED" in page
    for task in ("approve", "plan"):  # neither subject nor body is rendered
        assert bag().dags["galaxy_taxonomy"].get_task(task).template_fields == ("about",)


@pytest.mark.parametrize(
    ("answer", "state"), [(None, "failed"), (["Approve"], "success"), (["Approve"], "failed"), (["Reject"], "success")]
)
def test_what_is_planned_first_is_announced_once_it_is_approved(answer: list[str] | None, state: str) -> None:
    """A plan that was rejected is no failure; one that could not be made is, and announces nothing.

    An answer that was given before the run was cleared, to a task that now fails before it starts, is none.
    """
    bag()
    from airflow.sdk.exceptions import AirflowSkipException

    from galaxy_airflow.operators import PLANNED
    from galaxy_airflow.tasks import sources
    from taskgalaxy_ops.errors import SourceError

    xcoms: dict[Any, Any] = {("plan", PLANNED): {"sources": ["mine"]}} if answer else {}
    if answer == ["Approve"]:  # a rejected one skips what follows, and returns nothing
        xcoms["plan", "return_value"] = {"chosen_options": answer}
    ti = SimpleNamespace(
        dag_id="galaxy_ingest",
        run_id="mine",
        get_task_states=lambda dag_id, task_ids, run_ids: {"mine": {"plan": state}},
        xcom_pull=lambda task_ids, key="return_value": xcoms.get((task_ids, key)),
    )
    done, form = [{"source": "mine"}], {"then": "plan first"}
    if (answer, state) == (["Approve"], "success"):
        sources.run_or_skip(form, ti)
    else:
        with pytest.raises(AirflowSkipException, match="nobody approved"):
            sources.run_or_skip(form, ti)
    if answer:
        sources.still_failing(done, [{"name": "mine"}], form, ti)
    else:
        with pytest.raises(SourceError, match="plan: see its task"):
            sources.still_failing(done, [{"name": "mine"}], form, ti)


def test_links_lead_to_pages_of_ours_alone() -> None:
    bag()
    from galaxy_airflow.links import PageLink

    def link(page: Any) -> str:
        key = SimpleNamespace(task_id="t", map_index=-1, xcom_pull=lambda **_: {"page": page})
        return PageLink("Plan").get_link(None, ti_key=key)

    assert link("plan-0123abcd") == "/galaxy/reports/plan-0123abcd"
    for wrong in (None, "", "../x", "http://evil.example", "a" * 200, 7):
        assert link(wrong) == ""


def test_what_a_stage_left_and_a_later_one_has_answered_is_not_left() -> None:
    bag()
    from galaxy_airflow.tasks.generate import left_by_lane

    def stage(lane: int, pending: int, source: str = "mine") -> dict[str, Any]:
        return {
            "source": source,
            "lane": lane,
            "pending": pending,
            "reasons": ["away"] if pending else [],
            "unaffordable": False,
        }

    # Two lanes by filter, write and vote: the first was left something by filter alone, the second by all three.
    of_stages = [stage(0, 3), stage(1, 5), stage(0, 0), stage(1, 6), stage(0, 0), stage(1, 7)]
    assert left_by_lane(of_stages) == [stage(1, 7)]
    assert left_by_lane([stage(0, 2), stage(0, 3, "other")]) == [stage(0, 2), stage(0, 3, "other")]
    assert left_by_lane([]) == []


def test_pages_are_for_whoever_may_read_dags(database: Path) -> None:
    """Every page depends on Airflow's own check; an anonymous request gets 401."""
    bag()
    from fastapi.testclient import TestClient

    from galaxy_airflow.pages import app

    open_to_all = {"/healthz"}
    for route in app.routes:
        if route.path not in open_to_all:
            assert route.dependencies, f"{route.path} is open to anyone"
    with TestClient(app) as client:
        for path in ("/", "/reports/release-v000001", f"/images/{'0' * 64}"):
            assert client.get(path).status_code == 401


def test_a_user_without_the_right_to_read_dags_is_told_so(database: Path) -> None:
    bag()
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    from galaxy_airflow.pages import app

    manager = create_auth_manager()
    nobody = manager.generate_jwt(SimpleAuthManagerUser(username="nobody", role=None))
    app.state.auth_manager = manager
    with TestClient(app) as client:
        for path in ("/", "/dags/galaxy_ingest", "/reports/release-v000001", f"/images/{'0' * 64}"):
            refused = client.get(path, headers={"Authorization": f"Bearer {nobody}"})
            assert refused.status_code == 403
            assert "Your role in Airflow may not read these DAGs." in refused.text
