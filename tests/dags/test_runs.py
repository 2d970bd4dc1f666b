"""Each DAG run whole by ``dag.test()``: full, empty, failing, and again. What counts is what the store holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from e2e.galaxies import Models
from releases import released

from dags.bag import bag, fresh
from dags.conftest import model
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.backends.local import LocalBackend
from taskgalaxy_ops.finetune.jobs import State
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations import takedown
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.operations.forecast import checked
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

pytestmark = pytest.mark.usefixtures("database")

ASKING = tuple(f"lane_of_shards.{name}" for name in ("filter", "write", "vote"))


def run(dag: str, **form: Any) -> dict[str, str]:
    """Run a DAG with this form; the states of its tasks, mapped ones with their index, and its own under ""."""
    done = fresh(f"{dag}.py").dags[dag].test(run_conf=form)
    states = {
        ti.task_id + (f"[{ti.map_index}]" if ti.map_index >= 0 else ""): str(ti.state)
        for ti in done.get_task_instances()
    }
    return {**states, "": str(done.state.value)}


# What is left out of a run that registers one source, and plans nothing.
REGISTERED = {
    **{"look": "success", "register[0]": "success", "complete": "success", "": "success"},
    "plan": "skipped",
}


def ingested(source: str, location: Path) -> None:
    assert run("galaxy_ingest", name=source, location=str(location))[""] == "success"


@pytest.fixture
def shapes(pictures: Path, tmp_path: Path) -> Path:
    """A folder of four images."""
    return Path(shutil.copytree(pictures / "shapes", tmp_path / "shapes", ignore=shutil.ignore_patterns("source.json")))


def test_ingest(settings_of: Callable[..., Settings], shapes: Path) -> None:
    (shapes / "broken.png").write_bytes(b"\x89PNG and no more")
    workspace = Workspace.open(settings_of())
    states = run("galaxy_ingest", name="mine", location=str(shapes), licence="CC0-1.0", suffixes=[".png"], limit=5)
    assert states == {**REGISTERED, "announce": "success"}
    assert {claim.licence for claim in workspace.registry.claims()} == {"CC0-1.0"}
    assert [reject.file for reject in workspace.registry.rejects()] == ["broken.png"]
    assert workspace.registry.scans()["mine"].settings == {"licence": "CC0-1.0", "suffixes": [".png"], "limit": 5}
    assert announcements.awaited(workspace) == ["mine"]
    before = workspace.registry.last()
    assert run("galaxy_ingest", name="mine")[""] == "success"  # again: it knows where
    assert workspace.registry.last() == before


def test_ingest_of_a_table_with_options(settings_of: Callable[..., Settings], shapes: Path, tmp_path: Path) -> None:
    raws = [path.read_bytes() for path in sorted(shapes.glob("*.png"))]
    pyarrow.parquet.write_table(pyarrow.table({"a": raws, "b": raws}), tmp_path / "rows.parquet")
    workspace = Workspace.open(settings_of())
    states = run("galaxy_ingest", name="rows", location=f"parquet:{tmp_path}/rows.parquet", options={"column": "b"})
    assert states == {**REGISTERED, "announce": "success"}
    assert workspace.registry.scans()["rows"].settings == {"options": {"column": "b"}}
    assert len(list(workspace.registry.claims())) == len(raws) > 0


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"name": "nowhere"}, "not in the settings"),
        ({"name": "empty", "location": "EMPTY"}, "lists no image"),
        ({"name": "gone", "location": "/no/such/folder"}, "is no folder"),
    ],
)
def test_ingest_of_what_is_not_there(
    settings_of: Callable[..., Settings],
    tmp_path: Path,
    form: dict[str, str],
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    workspace = Workspace.open(settings_of())
    (tmp_path / "empty folder").mkdir()
    if form.get("location") == "EMPTY":
        form = {**form, "location": str(tmp_path / "empty folder")}
    states = run("galaxy_ingest", **form)
    assert (states["register[0]"], states["complete"], states[""]) == ("failed", "upstream_failed", "failed")
    assert workspace.registry.scans() == {}
    assert named in caplog.text


def test_the_form_refuses_what_is_no_name() -> None:
    from airflow.sdk.exceptions import ParamValidationError

    params = bag().dags["galaxy_ingest"].params
    for wrong in ("", "a/b", "x" * 101):
        with pytest.raises(ParamValidationError):
            params.get_param("name").resolve(wrong)


def test_watch(settings_of: Callable[..., Settings], pictures: Path, shapes: Path, tmp_path: Path) -> None:
    parent = tmp_path / "incoming"
    parent.mkdir()
    settings = settings_of(
        sources={"shapes": {"location": str(shapes)}}, airflow={"retries": 0, "watch_parents": [str(parent)]}
    )
    workspace = Workspace.open(settings)
    states = run("galaxy_watch")
    assert states["announce"] == "success"
    assert announcements.announced(workspace)[-1].sources == ["shapes"]

    states = run("galaxy_watch")  # nothing new
    nothing = ("register", "plan", "announce")
    assert states == {"look": "success", "complete": "success", "": "success", **dict.fromkeys(nothing, "skipped")}
    assert len(announcements.announced(workspace)) == 1

    shutil.copytree(pictures / "photos", parent / "photos")
    (shapes / "one more.png").write_bytes(sorted((pictures / "documents").glob("*.png"))[0].read_bytes())
    states = run("galaxy_watch")
    assert (states["register[0]"], states["register[1]"], states["announce"]) == ("success", "success", "success")
    assert announcements.announced(workspace)[-1].sources == ["photos", "shapes"]
    assert sorted(workspace.registry.scans()) == ["photos", "shapes"]
    assert len(list(workspace.registry.claims())) == 3 + 5

    shutil.rmtree(shapes)  # one fails: the others go on, and the last task is red
    (parent / "photos" / "again.png").write_bytes(sorted((pictures / "documents").glob("*.png"))[1].read_bytes())
    states = run("galaxy_watch")
    assert (states["announce"], states["complete"], states[""]) == ("success", "failed", "failed")
    assert announcements.announced(workspace)[-1].sources == ["photos"]


def test_generate_and_release(settings_of: Callable[..., Settings], models: Models, shapes: Path) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    states = run("galaxy_generate", source="mine")
    assert states[""] == "success"
    lanes = [f"lane_of_shards.{task}[{lane}]" for task in ("embed_match", "filter", "write", "vote") for lane in (0, 1)]
    assert {name: states[name] for name in lanes} == dict.fromkeys(lanes, "success")
    results = RunResults(workspace)
    assert results.pending == 0
    assert len(results.samples) > 2
    assert announcements.awaited(workspace) == []

    assert run("galaxy_release")[""] == "success"
    assert [one.samples for one in published(workspace)] == [len(results.samples)]
    page = workspace.store.get(keys.report("release-v000001")).decode()
    assert "Simulated" in page

    before = models.stats()["requests"]
    assert run("galaxy_generate", source="mine")[""] == "success"  # again: asks nothing
    assert run("galaxy_release") == {"ready": "success", "release": "success", "announce": "skipped", "": "success"}
    assert len(published(workspace)) == 1
    assert models.stats()["requests"] == before

    rules = {"cap": 1, "variants": ["plain"], "validation": 0.0, "test": 0.0, "context": ["caption"]}
    states = run("galaxy_release", **rules)  # the form's own
    assert states["announce"] == "success"
    manifest = json.loads(workspace.store.get(keys.release(2) + "manifest.json"))
    assert (manifest["made_with"]["release"]["cap"], manifest["made_with"]["release"]["context"]) == (1, ["caption"])
    assert manifest["counts"]["samples"] == manifest["counts"]["train"] == manifest["counts"]["task_types"]


def test_generate_in_one_lane(settings_of: Callable[..., Settings], shapes: Path) -> None:
    """Airflow hands on what one mapped task gave in another form than what several gave."""
    workspace = Workspace.open(settings_of(airflow={"retries": 0, "lanes": 1}))
    ingested("mine", shapes)
    assert run("galaxy_generate", source="mine")[""] == "success"
    assert announcements.awaited(workspace) == []


def test_generate_with_targets_asks_in_one_lane_about_all_sources_that_were_run(
    settings_of: Callable[..., Settings], models: Models, shapes: Path, pictures: Path
) -> None:
    aim = {"targets": {"samples": 2, "tries": 4}}
    workspace = Workspace.open(settings_of(**aim))
    ingested("mine", shapes)
    ingested("photos", pictures / "photos")
    for source in ("mine", "photos"):
        states = run("galaxy_generate", source=source)
        assert states[""] == "success"
        assert [name for name in states if name.startswith("lane_of_shards.vote")] == ["lane_of_shards.vote[0]"]
    results = RunResults(workspace)
    found = results.targets
    assert results.pending == 0 and found is not None
    assert found.types["on its way"] == 0 and found.types["at its target"] > 0
    assert models.stats()["asked_again"] == []
    asked = models.stats()["requests"]
    assert run("galaxy_generate", sources=["mine", "photos"])[""] == "success"
    assert models.stats()["requests"] == asked


@pytest.mark.parametrize(
    ("sources", "said"), [(["mine", "nobody"], "not registered: 'nobody'"), (None, "no source is chosen")]
)
def test_generate_of_what_is_not_registered_names_what_is_and_announces_nothing(
    settings_of: Callable[..., Settings],
    shapes: Path,
    caplog: pytest.LogCaptureFixture,
    sources: list[str] | None,
    said: str,
) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    before = Log(workspace.store, keys.ANNOUNCEMENTS_LOG).read()
    states = run("galaxy_generate", sources=sources)
    assert (states["lanes"], states["announce"], states["complete"], states[""]) == (
        *("failed", "skipped", "failed", "failed"),
    )
    assert len(Log(workspace.store, keys.ANNOUNCEMENTS_LOG).read()) == len(before)
    assert f"{said}. Sources in the form of galaxy_generate: choose among mine (" in caplog.text


def test_generate_of_several_sources(
    settings_of: Callable[..., Settings], models: Models, shapes: Path, pictures: Path
) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    ingested("photos", pictures / "photos")
    assert announcements.awaited(workspace) == ["mine", "photos"]
    states = run("galaxy_generate", sources=["photos", "mine"])
    assert states[""] == "success"
    assert [name for name in states if name.startswith("lane_of_shards.vote")] == [
        f"lane_of_shards.vote[{lane}]"
        for lane in (0, 1)  # one a source: two lanes are shared out
    ]
    assert announcements.awaited(workspace) == []
    assert RunResults(workspace).pending == 0
    assert models.stats()["asked_again"] == []


def test_the_form_of_generate_requires_sources_and_announced_runs_need_none() -> None:
    """Airflow's form takes for required what has a type without null, and validates by the whole schema."""
    from airflow.sdk.exceptions import ParamValidationError

    sources = bag().dags["galaxy_generate"].params.get_param("sources")
    assert sources.value is None
    assert sources.schema["type"] == "array"
    for allowed in (None, ["mine"], ["mine", "photos"]):
        sources.resolve(allowed)
    for wrong in ("mine", [1]):
        with pytest.raises(ParamValidationError):
            sources.resolve(wrong)


def test_ingest_of_each_folder(
    settings_of: Callable[..., Settings], shapes: Path, pictures: Path, tmp_path: Path, said: Callable[[], str]
) -> None:
    workspace = Workspace.open(settings_of())
    ingested("known", shapes)
    parent = tmp_path / "incoming"
    shutil.copytree(pictures / "photos", parent / "photos")
    shutil.copytree(shapes, parent / "known")  # of the name of one that lies elsewhere
    shutil.copytree(shapes, parent / "more shapes")
    states = run("galaxy_ingest", name="*", location=str(parent), licence="CC0-1.0", limit=2)
    assert (states["register[0]"], states["register[1]"], states["announce"]) == ("success", "success", "success")
    assert states["complete"] == "failed"
    assert "rename the folder" in said()
    assert sorted(workspace.registry.scans()) == ["known", "more shapes", "photos"]
    for name in ("more shapes", "photos"):  # the form's choices are each folder's
        chosen = workspace.registry.scans()[name].settings
        assert (chosen["licence"], chosen["limit"]) == ("CC0-1.0", 2)
    assert len([claim for claim in workspace.registry.claims() if claim.source == "more shapes"]) == 2
    assert announcements.announced(workspace)[-1].sources == ["more shapes", "photos"]

    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("galaxy_ingest", name="*", location=str(empty))["look"] == "failed"
    assert "there is no folder below" in said()


@pytest.mark.parametrize("dag", ["galaxy_ingest", "galaxy_watch", "galaxy_taxonomy"])
def test_a_form_of_before_that_said_announce_is_refused(
    settings_of: Callable[..., Settings], shapes: Path, said: Callable[[], str], dag: str
) -> None:
    """Passed over, its ``announce: false`` would spend what was not to be spent."""
    workspace = Workspace.open(settings_of(sources={"mine": {"location": str(shapes)}}))
    assert run(dag, **({"name": "mine"} if dag == "galaxy_ingest" else {}), announce=False)[""] == "failed"
    assert "`announce` is now `then`" in said()
    assert announcements.announced(workspace) == []


def test_generate_short_of_budget_then_again(
    settings_of: Callable[..., Settings], models: Models, shapes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace.open(settings_of(budget={"max_calls": 6}))
    ingested("mine", shapes)
    states = run("galaxy_generate", source="mine")
    # A stage that leaves something without an answer is not green.
    assert {state for name, state in states.items() if name.startswith("lane_of_shards.embed")} == {"success"}
    assert {state for name, state in states.items() if name.startswith("lane_of_shards.vote")} == {"failed"}
    assert (states["complete"], states[""]) == ("failed", "failed")
    assert "units have no answer yet" in caplog.text
    assert "raise the cap" in caplog.text
    assert "Traceback" not in caplog.text
    assert announcements.awaited(workspace) == []  # it has ended, pending: nobody waits for it
    states = run("galaxy_release")
    assert (states["release"], states[""]) == ("failed", "failed")  # by hand: refused, and said
    settings_of()
    assert run("galaxy_generate", source="mine")[""] == "success"
    assert models.stats()["asked_again"] == []


def test_generate_while_a_model_is_away(settings_of: Callable[..., Settings], models: Models, shapes: Path) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    models.control(faults={"server_error": 1.0})
    states = run("galaxy_generate", source="mine")
    asking = [state for name, state in states.items() if name.startswith(ASKING)]
    assert (set(asking), len(asking), states["complete"]) == ({"failed"}, 6, "failed")
    models.control(faults={"server_error": 0.0})
    assert run("galaxy_generate", source="mine")[""] == "success"
    assert RunResults(workspace).pending == 0


@pytest.mark.parametrize(("stage", "dead"), [("filter", "sim-teacher"), ("vote", "sim-judge-a")])
def test_generate_waits_for_a_model_that_comes_back(
    settings_of: Callable[..., Settings],
    models: Models,
    shapes: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], str],
    stage: str,
    dead: str,
) -> None:
    """The stage is deferred meanwhile, says so, and no try is used up."""
    bag()  # puts the plugins on the path
    from galaxy_airflow.triggers import ModelBack
    from taskgalaxy_ops import pipeline
    from taskgalaxy_ops.inference import attempts, model_wait

    monkeypatch.setattr(attempts, "_LEAVE_SECONDS", 0.5)
    monkeypatch.setattr(model_wait, "LOOK_SECONDS", 0.2)
    waits: list[Any] = []
    wait = ModelBack.run

    async def heals(trigger: Any) -> Any:
        """Whoever waits sees the model away at first, and then healed."""
        waits.append(trigger)
        models.control(faults={"server_error": 0.0})
        async for event in wait(trigger):
            yield event

    monkeypatch.setattr(ModelBack, "run", heals)
    generate = pipeline.generate

    def dies(workspace: Workspace, options: Any, **more: Any) -> Any:
        if options.last_stage == stage and not waits:
            models.control(faults={"server_error": 1.0})
        return generate(workspace, options, **more)

    monkeypatch.setattr(pipeline, "generate", dies)

    def of(name: str) -> dict[str, Any]:
        return {**model(name, models.base_url), "patience_seconds": 60}

    judges = [of(f"sim-judge-{letter}") for letter in "abc"]
    workspace = Workspace.open(settings_of(teacher=of("sim-teacher"), judges=judges))
    ingested("mine", shapes)
    assert run("galaxy_generate", source="mine")[""] == "success"
    assert dead in [each["name"] for each in waits[0].models]
    text = said()
    assert f"{dead} has served nothing since" in text
    assert "given up at" in text
    assert RunResults(workspace).pending == 0
    assert status(workspace).outages == []  # it serves again


@pytest.fixture
def batched(
    settings_of: Callable[..., Settings], models: Models, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """Writes settings for a new store whose models are all asked by batch; they are looked at every moment."""
    bag()  # puts the plugins on the path
    from galaxy_airflow.tasks import common

    monkeypatch.setattr(common, "_LEAST_POLL_SECONDS", 0)  # nothing but this process runs the tasks

    def of(name: str) -> dict[str, Any]:
        return {**model(name, models.base_url), "mode": "batch"}

    def make(**batch: Any) -> Settings:
        return settings_of(
            teacher=of("sim-teacher"),
            judges=[of(f"sim-judge-{letter}") for letter in "abc"],
            run={"lease_seconds": 3, "batch": {"poll_seconds": 0.1, **batch}},
        )

    return make


def test_generate_by_batches_that_are_waited_for(
    batched: Callable[..., Settings], models: Models, shapes: Path
) -> None:
    workspace = Workspace.open(batched())
    ingested("mine", shapes)
    before = models.stats()["batches"]["created"]
    models.control(batches={"seconds": 1})
    assert run("galaxy_generate", source="mine")[""] == "success"
    assert RunResults(workspace).pending == 0
    # A batch an image shard and stage, of the votes a second one where the first two judges disagree.
    assert models.stats()["batches"]["created"] - before >= 2 * 3
    assert models.stats()["asked_again"] == []


def test_generate_by_batches_for_which_there_is_no_time(
    batched: Callable[..., Settings], models: Models, shapes: Path, said: Callable[[], str]
) -> None:
    workspace = Workspace.open(batched(wait_seconds=0))
    ingested("mine", shapes)
    models.control(batches={"seconds": 3600})
    states = run("galaxy_generate", source="mine")
    assert {state for name, state in states.items() if name.startswith(ASKING)} == {"failed"}
    assert states["complete"] == "failed"
    assert "sim-teacher: 24 request items in batch batch_" in said()
    assert RunResults(workspace).pending == 4 * 12
    batched()
    models.control(batches={"seconds": 0})
    assert run("galaxy_generate", source="mine")[""] == "success"
    assert models.stats()["asked_again"] == []


def test_release_of_nothing(settings_of: Callable[..., Settings], caplog: pytest.LogCaptureFixture) -> None:
    settings_of()
    states = run("galaxy_release")
    assert (states["release"], states[""]) == ("failed", "failed")
    assert "nothing to release" in caplog.text


def test_taxonomy(settings_of: Callable[..., Settings], models: Models, shapes: Path) -> None:
    workspace = Workspace.open(settings_of())
    states = run("galaxy_taxonomy", max_new=5)
    assert states == {
        **{"propose": "success", "approve": "skipped", "publish": "success"},
        "plan": "skipped",
        **{"announce": "skipped", "": "success"},  # no source is registered yet
    }
    versions = TaxonomyStore(workspace).versions()
    assert [each["origin"] for each in versions] == ["seeds", "expand"]
    assert len(TaxonomyStore(workspace).version(1).nodes) == len(TaxonomyStore(workspace).version(0).nodes) + 5
    ingested("mine", shapes)
    assert run("galaxy_taxonomy", max_new=3)["announce"] == "success"
    last = announcements.announced(workspace)[-1]
    assert (last.reason, last.sources) == ("taxonomy", ["mine"])
    states = run("galaxy_taxonomy", max_new=2, then="only publish")  # only published
    assert (states["publish"], states["announce"], states[""]) == ("success", "skipped", "success")
    assert len(TaxonomyStore(workspace).versions()) == 4
    assert announcements.announced(workspace)[-1].number == last.number


def test_taxonomy_by_batches(batched: Callable[..., Settings], models: Models) -> None:
    workspace = Workspace.open(batched())
    models.control(batches={"seconds": 1})
    assert run("galaxy_taxonomy", max_new=5, rounds=2)[""] == "success"
    assert [each["origin"] for each in TaxonomyStore(workspace).versions()] == ["seeds", "expand"]


def test_taxonomy_with_nothing_new(settings_of: Callable[..., Settings]) -> None:
    workspace = Workspace.open(settings_of())
    types = len(TaxonomyStore(workspace).version().leaves())
    states = run("galaxy_taxonomy", up_to=types)
    assert (states["propose"], states["publish"], states[""]) == ("skipped", "skipped", "success")
    assert run("galaxy_taxonomy", where_images_crowd=True)["propose"] == "skipped"  # there are no images at all


def test_taxonomy_grows_where_images_crowd(settings_of: Callable[..., Settings], shapes: Path) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    assert run("galaxy_generate", source="mine")[""] == "success"
    settings_of(taxonomy={"approval": "off", "scheduled_images_a_type": 0.5})
    assert run("galaxy_taxonomy", where_images_crowd=True, max_new=4)["publish"] == "success"
    old, new = TaxonomyStore(workspace).version(0), TaxonomyStore(workspace).version(1)
    added = {node.path for node in new.nodes} - {node.path for node in old.nodes}
    fitting = {row.task_type.split("~")[0] for row in RunResults(workspace).relevant}
    assert added
    assert {path.split("~")[0] for path in added} <= fitting


def test_taxonomy_while_the_teacher_is_away(
    settings_of: Callable[..., Settings], models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace.open(settings_of())
    models.control(faults={"server_error": 1.0})
    states = run("galaxy_taxonomy")
    assert (states["propose"], states[""]) == ("failed", "failed")
    assert "have no proposals yet" in caplog.text
    assert len(TaxonomyStore(workspace).versions()) == 1


def test_backfill(settings_of: Callable[..., Settings], models: Models, shapes: Path, pictures: Path) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    ingested("photos", pictures / "photos")
    announced = len(announcements.announced(workspace))
    states = run("galaxy_backfill", sources=["mine"])  # a dry run, as the form has it
    assert states == {"plan": "success", "forecast": "skipped", "announce": "skipped", "": "success"}
    assert len(announcements.announced(workspace)) == announced
    assert models.stats()["requests"] == 0
    (page,) = [listed.key for listed in workspace.store.list("reports/plan-")]
    assert b"mine" in workspace.store.get(page)

    states = run("galaxy_backfill", sources=["mine"], dry_run=False, budget=0.5, settings_version=None)
    assert states["announce"] == "success"
    last = announcements.announced(workspace)[-1]
    assert (last.reason, last.sources, last.orders) == ("backfill", ["mine"], {"max_cost": 0.5})
    assert run("galaxy_backfill", dry_run=False)["announce"] == "success"  # all of them
    assert announcements.announced(workspace)[-1].sources == ["mine", "photos"]


def test_what_is_only_registered_waits_and_a_backfill_forecasts_it(
    settings_of: Callable[..., Settings], models: Models, shapes: Path, pictures: Path, tmp_path: Path
) -> None:
    workspace = Workspace.open(settings_of())
    ingested("known", shapes)
    assert run("galaxy_generate", source="known")[""] == "success"
    photos = shutil.copytree(pictures / "photos", tmp_path / "photos")
    seen, asked = announcements.seen(workspace), models.stats()["requests"]
    states = run("galaxy_ingest", name="new", location=str(photos), then="only register")
    assert states == {**REGISTERED, "announce": "skipped"}
    (photos / "one more.png").write_bytes(min((pictures / "documents").glob("*.png")).read_bytes())
    states = run("galaxy_watch", then="only register")
    assert (states["announce"], states[""]) == ("skipped", "success")

    states = run("galaxy_backfill", forecast=True)
    assert states == {"plan": "success", "forecast": "success", "announce": "skipped", "": "success"}
    assert announcements.seen(workspace) == seen
    assert models.stats()["requests"] == asked, "the answers of the other source give a forecast"
    (page,) = [listed.key for listed in workspace.store.list("reports/forecast-")]
    assert b"images of all sources" in workspace.store.get(page)
    assert b"Probe: nothing had to be asked first" in workspace.store.get(page)
    made = checked(workspace)
    assert made is not None and made.tokens.low < made.tokens.high
    states = run("galaxy_backfill", forecast=True, dry_run=False)
    assert (states["forecast"], states["announce"]) == ("success", "success")
    assert run("galaxy_generate", source="new")[""] == "success"
    assert models.stats()["asked_again"] == []
    after = checked(workspace)
    assert after is not None and after.spent_tokens > made.spent_tokens


def test_backfill_of_nothing_and_of_nobody(settings_of: Callable[..., Settings], shapes: Path) -> None:
    settings_of()
    assert run("galaxy_backfill")["plan"] == "failed"
    ingested("mine", shapes)
    assert run("galaxy_backfill", sources=["nobody"])["plan"] == "failed"
    assert run("galaxy_backfill", taxonomy_version=7)["plan"] == "failed"
    assert run("galaxy_backfill", settings_version=99)["plan"] == "failed"


def test_a_backfill_with_an_older_taxonomy_makes_it_the_newest(
    settings_of: Callable[..., Settings], shapes: Path
) -> None:
    workspace = Workspace.open(settings_of())
    ingested("mine", shapes)
    assert run("galaxy_taxonomy", max_new=3)["publish"] == "success"
    assert run("galaxy_backfill", taxonomy_version=0)[""] == "success"
    assert len(TaxonomyStore(workspace).versions()) == 2
    assert run("galaxy_backfill", taxonomy_version=0, dry_run=False)[""] == "success"
    assert TaxonomyStore(workspace).version(2).nodes == TaxonomyStore(workspace).version(0).nodes


def test_upkeep(settings_of: Callable[..., Settings], shapes: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = Workspace.open(settings_of())
    assert run("galaxy_upkeep")[""] == "success"  # of an empty store
    ingested("mine", shapes)
    takedown.take_down(workspace, [next(workspace.registry.claims()).image])
    workspace.store.put_if_absent(keys.blob("0" * 64), b"of a scan that was killed")
    assert run("galaxy_upkeep", delete=True, grace_days=1)[""] == "success"
    assert workspace.store.get(keys.blob("0" * 64)), "it is young"
    image = next(workspace.registry.claims()).image
    workspace.store.replace(keys.blob(image), b"damaged")
    states = run("galaxy_upkeep")
    assert (states["verify"], states["unreferenced"], states[""]) == ("failed", "success", "failed")
    assert image in caplog.text


def test_doctor(settings_of: Callable[..., Settings], models: Models, said: Callable[[], str]) -> None:
    settings_of()
    assert run("galaxy_doctor")[""] == "success"
    settings_of(teacher=model("away", "http://127.0.0.1:9/v1"))
    states = run("galaxy_doctor")
    assert states == {"store": "success", "models": "failed", "encoder": "success", "machine": "success", "": "failed"}
    assert "model away: http://127.0.0.1:9/v1" in said()
    assert models.stats()["requests"] > 0, "it asks as a run asks"


@pytest.mark.parametrize(
    ("mistake", "help_"),
    [
        ("quorum: 2", "no such field: remove it or mend its name"),
        ("vote: {quorum: 9}", "vote.quorum"),
        ("vote: [", "cannot be read as YAML"),
    ],
)
def test_settings_with_mistakes_are_named_in_the_task(
    settings_of: Callable[..., Settings], said: Callable[[], str], mistake: str, help_: str
) -> None:
    from dags.conftest import SETTINGS_FILE

    settings_of()
    SETTINGS_FILE.write_text(f"{SETTINGS_FILE.read_text('utf-8')}\n{mistake}\n", encoding="utf-8")
    assert run("galaxy_doctor")["store"] == "failed"
    text = said()
    assert help_ in text
    assert "Traceback" not in text


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., str]:
    """Writes a recipe of a few steps; what is named replaces whole fields."""

    def write(**changes: Any) -> str:
        raw = {**load_recipe("tiny").model_dump(mode="json"), "epochs": 2, "blind_control": False, **changes}
        file = tmp_path / "quick.yaml"
        file.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return str(file)

    return write


@pytest.mark.usefixtures("unhurried")
def test_finetune(
    settings_of: Callable[..., Settings], tmp_path: Path, quick: Callable[..., str], said: Callable[[], str]
) -> None:
    pytest.importorskip("trl", reason="the extra `train` is not installed")
    tuning = {"folder": str(tmp_path / "fine tune"), "poll_seconds": 2, "questions": 30}
    store = Workspace.open(settings_of(finetune=tuning))
    states = run("galaxy_finetune", recipe=quick())
    assert (states["check"], states["train"], states[""]) == ("failed", "upstream_failed", "failed")
    assert "nothing has been released" in said()

    released(store, images=30)
    states = run("galaxy_finetune", recipe=quick(), benchmarks=["held-out"])
    assert states == {"check": "success", "train": "success", "evaluate": "success", "": "success"}
    log = Log(store.store, keys.FINETUNE_LOG)
    entries = len(log.read())
    assert [entry.body["kind"] for entry in log.known()].count("intent") == 2
    (card,) = store.store.list("reports/finetune-")
    assert "SIMULATED" in store.store.get(card.key).decode()

    assert run("galaxy_finetune", recipe=quick(), benchmarks=["held-out"])[""] == "success"  # again
    assert len(log.read()) == entries

    said()  # a trainer that crashes: red at `train`, with the last lines of its log
    states = run("galaxy_finetune", recipe=quick(base={"model": str(tmp_path / "no model")}))
    assert (states["train"], states["evaluate"]) == ("failed", "upstream_failed")
    text = said()
    assert "Its log" in text
    assert "no model" in text

    # The form cancels what a run of it has started.
    long = quick(epochs=900)
    one = next(iter(finetune_run.tuning(store, recipe=long).jobs.values()))
    assert finetune_run.Trainings(store, "another").step(one) is State.RUNNING
    states = run("galaxy_finetune", recipe=long, cancel=True)
    assert (states["check"], states["train"]) == ("skipped", "skipped")
    assert LocalBackend().state(one, None) is State.CANCELLED


def test_finetune_refuses_a_licence(
    settings_of: Callable[..., Settings], tmp_path: Path, said: Callable[[], str]
) -> None:
    store = Workspace.open(settings_of(finetune={"folder": str(tmp_path / "tune"), "licences": ["MIT"]}))
    released(store, images=8)
    assert run("galaxy_finetune")["check"] == "failed"
    assert "finetune.licences allows MIT" in said()
