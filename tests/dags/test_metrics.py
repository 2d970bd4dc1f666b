"""Metrics: what arrives at a collector is what the tasks' receipts say, and no task fails of it."""

from __future__ import annotations

import atexit
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.galaxies import Models
from serving import Quiet, served

from dags.bag import bag, fresh
from dags.conftest import model
from dags.test_runs import ingested
from taskgalaxy_ops.demo.airflow_stack import ROOT
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.usage import Tally, Usage
from taskgalaxy_ops.workspace import Workspace

Tags = frozenset[tuple[str, str]]
STAGES = ("filter", "write", "vote")


class Collector:
    """A collector's stand-in: takes OTLP by HTTP, in protobuf, and keeps what came."""

    def __init__(self) -> None:
        self.url = ""
        self.types: dict[str, str] = {}
        self.sums: Counter[tuple[str, Tags]] = Counter()  # of counters, by name and tags
        self.gauges: dict[tuple[str, Tags], float] = {}  # the last value

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
                kind = metric.WhichOneof("data")
                if kind in {"sum", "gauge"}:
                    self.types[metric.name] = kind
                    for point in getattr(metric, kind).data_points:
                        self._point(metric, kind, point)

    def _point(self, metric: Any, kind: str, point: Any) -> None:
        tags = frozenset((each.key, each.value.string_value) for each in point.attributes)
        value = getattr(point, point.WhichOneof("value"))
        if kind == "gauge":
            self.gauges[metric.name, tags] = value
        else:
            assert metric.sum.aggregation_temporality == 1, "deltas, as the environment says"
            self.sums[metric.name, tags] += value

    def total(self, name: str, **tags: str) -> float:
        """The sum of a counter or gauge over all of its series that have these tags."""
        wanted = set(tags.items())
        return sum(
            value for (of, has), value in {**self.sums, **self.gauges}.items() if of == name and wanted <= set(has)
        )

    def tagged(self, name: str) -> set[frozenset[str]]:
        """The names of the tags that a metric came with."""
        return {frozenset(dict(has)) for of, has in {**self.sums, **self.gauges} if of == name}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(Quiet):
        def handle_it(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/v1/metrics", "application/x-protobuf")
            made.take(self.body())
            self.answer(200, headers={"Content-Type": "application/x-protobuf"})

    with served(Handler) as url:
        made.url = url
        yield made


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Turns the exporter on by the variables that docs/airflow.md names, as a worker does when it begins a task."""
    from airflow.sdk._shared.observability.metrics import otel_logger
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils
    from opentelemetry import metrics

    def begin(endpoint: str) -> None:
        monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)

    yield begin
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)
    atexit.unregister(otel_logger.flush_otel_metrics)
    metrics.get_meter_provider().shutdown()


def flush() -> None:
    """Send what was counted: what Airflow does as the process of a task ends."""
    from opentelemetry import metrics

    metrics.get_meter_provider().force_flush()


def run(dag: str, **form: Any) -> dict[str, Any]:
    """Run a DAG and send its metrics: the run's state, and the receipts of its tasks by task and map index."""
    from airflow.utils.session import create_session

    from galaxy_airflow import notes

    done = fresh(f"{dag}.py").dags[dag].test(run_conf=form)
    flush()
    with create_session() as session:
        rows = notes.xcoms(session.connection(), done.id, "return_value")
    return {"state": str(done.state.value), "receipts": rows}


def receipts(found: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """The receipts of a stage's tasks, one a lane, in order of lanes."""
    rows = [row for row in found["receipts"] if row[0].endswith(f".{stage}")]
    return [value for _, _, value in sorted(rows, key=lambda row: row[1])]


@pytest.fixture
def priced(settings_of: Callable[..., Settings], models: Models, pictures: Path) -> Callable[..., Settings]:
    """Settings whose models cost something, and a registered source of four images in two lanes."""

    def of(name: str) -> dict[str, Any]:
        return {**model(name, models.base_url), "price": {"input": 2.5, "output": 10.0}}

    def make(**changes: Any) -> Settings:
        judges = [of(f"sim-judge-{letter}") for letter in "abc"]
        return settings_of(teacher=of("sim-teacher"), judges=judges, **changes)

    make()
    ingested("mine", pictures / "shapes")
    return make


@pytest.mark.usefixtures("database", "priced")
def test_a_collector_gets_what_the_receipts_say(collector: Collector, exporting: Callable[[str], None]) -> None:
    exporting(collector.url)
    found = run("galaxy_generate", source="mine")
    assert found["state"] == "success"
    for stage in STAGES:
        of = {"dag_id": "galaxy_generate", "stage": stage, "source": "mine"}
        lanes = receipts(found, stage)
        assert len(lanes) == 2
        for name, field in (("calls", "calls"), ("tokens", "tokens"), ("spend", "cost")):
            told = collector.total(f"airflow.taskgalaxy.{name}", **of)
            assert told == pytest.approx(sum(lane[field] for lane in lanes)), (stage, name)
            assert told > 0
        rejects = sum((Counter(lane["rejects"]) for lane in lanes), Counter[str]())
        assert rejects or stage != "filter", "the filter rejects something, or this proves nothing"
        for reason, count in rejects.items():
            assert collector.total("airflow.taskgalaxy.rejects", **of, reason=reason) == count
        assert collector.total("airflow.taskgalaxy.rejects", **of) == rejects.total()
        for lane in ("1", "2"):
            assert collector.total("airflow.taskgalaxy.rate", **of, lane=lane) > 0
    assert collector.total("airflow.taskgalaxy.pending") == 0
    by = {judge: collector.total("airflow.taskgalaxy.calls", model=f"sim-judge-{judge}") for judge in "abc"}
    assert min(by.values()) > 0
    assert sum(by.values()) == collector.total("airflow.taskgalaxy.calls", stage="vote")
    kinds = [collector.total("airflow.taskgalaxy.tokens", kind=kind) for kind in ("prompt", "completion")]
    assert sum(kinds) == collector.total("airflow.taskgalaxy.tokens")
    assert min(kinds) > 0
    assert documented() == {
        name.removeprefix("airflow."): (collector.types[name], frozenset.union(*collector.tagged(name)))
        for name in collector.types
        if name.startswith("airflow.taskgalaxy.")
    }


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """The table of metrics in the docs: by name, the type as OTLP calls it, and the tags."""
    text = (ROOT / "docs" / "airflow.md").read_text("utf-8")
    rows = re.findall(r"^\| `(taskgalaxy\.\w+)` \| (\w+) \| ([^|]*) \|", text, re.MULTILINE)
    types = {"counter": "sum", "gauge": "gauge"}
    return {name: (types[kind], frozenset(re.findall(r"`(\w+)`", tags))) for name, kind, tags in rows}


@pytest.mark.usefixtures("database")
def test_what_stays_without_an_answer_is_told(
    priced: Callable[..., Settings], collector: Collector, exporting: Callable[[str], None]
) -> None:
    exporting(collector.url)
    priced(budget={"max_calls": 3})
    assert run("galaxy_generate", source="mine")["state"] == "failed"
    told = {tags: value for (name, tags), value in collector.gauges.items() if name == "airflow.taskgalaxy.pending"}
    assert {dict(tags)["lane"] for tags in told} == {"1", "2"}
    assert sum(told.values()) > 0
    assert collector.total("airflow.taskgalaxy.calls") == 3
    workspace = Workspace.open(priced())
    for _ in range(2):  # the second run finds everything done
        assert run("galaxy_generate", source="mine")["state"] == "success"
    assert collector.total("airflow.taskgalaxy.pending") == 0
    # What an image shard rejected while it was not finished is counted once, when it is.
    for counts in RunResults(workspace).funnel:
        if counts.stage in STAGES:
            assert collector.total("airflow.taskgalaxy.rejects", stage=counts.stage) == sum(counts.rejects.values())


@pytest.mark.usefixtures("database", "priced")
def test_growing_the_taxonomy_is_told_too(collector: Collector, exporting: Callable[[str], None]) -> None:
    exporting(collector.url)
    found = run("galaxy_taxonomy", max_new=3, then="only publish")
    (proposed,) = [value for task, _, value in found["receipts"] if task == "propose"]
    of = {"dag_id": "galaxy_taxonomy", "stage": "expand", "model": "sim-teacher"}
    for name, field in (("calls", "calls"), ("tokens", "tokens"), ("spend", "cost"), ("rejects", "rejects")):
        assert collector.total(f"airflow.taskgalaxy.{name}", **of) == pytest.approx(proposed[field]), name
    assert proposed["calls"] > 0


@pytest.fixture
def metrics() -> Any:
    bag()  # puts the plugins on the path
    from galaxy_airflow import metrics

    return metrics


@pytest.fixture
def told(metrics: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    """What the exporter is handed, which is on."""
    from airflow.sdk.observability import stats

    taken: list[tuple[str, float, dict[str, str]]] = []
    monkeypatch.setattr(metrics, "_exported", lambda: True)
    for kind in ("incr", "gauge"):
        monkeypatch.setattr(stats, kind, lambda name, value, *, tags: taken.append((name, value, tags)))
    return taken


def test_tags_are_bounded_in_length_and_number(metrics: Any, told: list[tuple[str, float, dict[str, str]]]) -> None:
    long = "x" * 500
    usage = Usage(by_model={long: Tally(calls=1), f"{long}y": Tally(calls=2)})
    rejects = {"a model's\nown words " * 9: 2, "not fitting": 1}
    metrics.tell(lambda: [metrics.Work(dag="d", stage="s", source="a\u202e\nb", usage=usage, rejects=rejects)])
    tags = [tags for _, _, tags in told]
    assert {each["source"] for each in tags} == {"a b"}
    assert {len(each["model"]) for each in tags if "model" in each} == {64}
    assert len({each["model"] for each in tags if "model" in each}) == 2  # cut, and still two
    assert [(tags["reason"], value) for name, value, tags in told if name.endswith("rejects")] == [
        ("other", 2),
        ("not fitting", 1),
    ]
    names = [f"source {number:04}" for number in range(1000)]
    assert len({metrics.source_label(name, names) for name in names}) == 201
    assert metrics.source_label("source 0000", names) == "source 0000"
    assert metrics.source_label("source 0999", names) == "other"


def test_a_collector_that_is_away_fails_nothing(metrics: Any, exporting: Callable[[str], None]) -> None:
    exporting("http://127.0.0.1:9")
    metrics.tell(lambda: [metrics.Work(dag="d", stage="s", pending=3)])
    flush()


def test_metrics_fail_no_task_and_cost_nothing_where_they_are_off(
    metrics: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    def broken() -> Any:
        raise RuntimeError("the registry cannot be read")

    metrics.tell(broken)  # off: it is not even asked for
    assert "could not be told" not in said()
    monkeypatch.setattr(metrics, "_exported", lambda: True)
    metrics.tell(broken)
    text = said()
    assert "the task's metrics could not be told" in text
    assert "the registry cannot be read" in text
