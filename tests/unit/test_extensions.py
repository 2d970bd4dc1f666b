"""Registries: what ships, what installed packages bring, and what is told where a name or a package is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.extensions import REGISTRIES, Registry
from taskgalaxy_ops.generation.stages import STAGES
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.request import MalformedReplyError
from taskgalaxy_ops.operations import answers, doctor
from taskgalaxy_ops.prompts import NAMES
from taskgalaxy_ops.settings import QUESTION_FORMS, ReleaseSettings, parse_settings
from taskgalaxy_ops.settings.base import PROMPTS
from taskgalaxy_ops.storage.journal import Journal

__all__ = ["tiny_models"]

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes an installed package with one module of these lines, and these entry points by group."""

    def make(name: str, code: str = "", **groups: Mapping[str, str]) -> None:
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
        lines = [
            line
            for group, entries in groups.items()
            for line in (f"[taskgalaxy.{group}]", *(f"{entry} = {place}" for entry, place in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
        (site / f"{name}.py").write_text(code, "utf-8")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


def registry(**more: Any) -> Registry[Any]:
    shipped = {"plain": "json:dumps", "other": "json:loads"}
    return Registry(group="taskgalaxy.question_forms", what="form", shipped=shipped, error=SettingsError, **more)


def test_everything_that_ships_is_where_its_registry_says() -> None:
    for each in REGISTRIES:
        for name in each.shipped:
            assert each.get(name) is each.get(name)
            assert each.version(name) is None
        assert each.versions(each.shipped) is None


def test_what_ships_is_found_without_a_look_at_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskgalaxy_ops.extensions.entry_points", lambda **_: pytest.fail("it looked"))
    assert registry().get("plain") is __import__("json").dumps
    assert registry().knows("other")


def test_a_package_brings_a_name_and_nothing_is_imported_before_it_is_used(install: Install) -> None:
    install("bringer", "class Form:\n    version = 3", question_forms={"own": "bringer:Form"})
    found = registry()
    assert found.names() == ["plain", "other", "own"]
    assert found.told() == "'plain', 'other' or 'own' (installed packages bring own (bringer 1.0))"
    assert "bringer" not in sys.modules
    assert found.get("own").version == 3
    assert found.versions(["plain", "own"]) == {"own": "3"}
    assert found.problems() == []


def test_an_unknown_name_says_which_there_are_and_which_package_brings_what(install: Install) -> None:
    with pytest.raises(SettingsError) as alone:
        registry().get("ow")
    assert str(alone.value) == "form 'ow' is unknown.\n  Known forms: plain, other."
    install("bringer", "Form = 1", question_forms={"own": "bringer:Form"})
    with pytest.raises(SettingsError) as told:
        registry().get("ow")
    assert str(told.value).endswith("Known forms: plain, other, own (installed packages bring own (bringer 1.0)).")


@pytest.mark.parametrize(
    ("code", "place", "why"),
    [
        ("import no_such_module_at_all", "broken:Form", "no_such_module_at_all"),
        ("raise SystemError('at import')", "broken:Form", "at import"),
        ("", "broken:Form", "Form"),
        ("", "not_there:Form", "not_there"),
    ],
)
def test_one_that_cannot_be_loaded_is_named_and_takes_nothing_else_down(
    install: Install, code: str, place: str, why: str
) -> None:
    install("broken", code, question_forms={"bad": place})
    install("sound", "class Form:\n    version = '1'", question_forms={"good": "sound:Form"})
    found = registry()
    assert found.get("good").version == "1"
    assert found.names() == ["plain", "other", "bad", "good"]
    with pytest.raises(SettingsError, match=rf"form 'bad' of broken 1\.0 cannot be loaded \(.*{why}") as error:
        found.get("bad")
    assert place in str(error.value)
    (problem,) = found.problems()
    assert "broken 1.0" in problem and "\n" not in problem


def test_two_packages_of_one_name_are_both_named_and_neither_is_taken(install: Install) -> None:
    install("one", "Form = 1", question_forms={"own": "one:Form", "mine": "one:Form"})
    install("two", "Form = 2", question_forms={"own": "two:Form"})
    found = registry(versioned=False)
    with pytest.raises(SettingsError, match=r"'own' is brought by more than one installed package: one 1\.0, two 1\.0"):
        found.get("own")
    assert found.get("mine") == 1
    assert len(found.problems()) == 1


def test_a_name_that_ships_stays_what_ships_and_a_name_that_is_none_is_told(install: Install) -> None:
    install("taker", "Form = 1", question_forms={"plain": "taker:Form", "No Name": "taker:Form"})
    found = registry()
    assert found.names() == ["plain", "other"]
    assert found.get("plain") is __import__("json").dumps
    assert len(found.problems()) == 2
    assert all("taker 1.0" in each for each in found.problems())


def test_one_that_declares_no_version_is_named(install: Install) -> None:
    install("bringer", "class Form: pass", question_forms={"own": "bringer:Form"})
    with pytest.raises(SettingsError, match="'own' declares no version"):
        registry().version("own")
    assert len(registry().problems()) == 1
    assert registry(versioned=False).problems() == []


def test_doctor_tells_what_is_added_and_what_is_wrong_with_it(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(plain())
    assert [each.what for each in doctor.machine(settings)] == ["disk", "versions"]
    install("sound", "class Form:\n    version = '1'", question_forms={"good": "sound:Form"})
    install("broken", "1 / 0", trainers={"bad": "broken:Form"})
    for each in REGISTRIES:
        monkeypatch.setattr(each, "_brought", None)
    found = {each.what: each for each in doctor.machine(settings)}
    assert found["question forms"].fine and found["question forms"].detail == "good (sound 1.0)"
    assert not found["trainers"].fine and "broken 1.0" in found["trainers"].detail


def test_the_prompts_are_the_stages_and_those_of_growth() -> None:
    assert sorted(NAMES) == sorted(PROMPTS) == sorted([*(name for stage in STAGES for name in stage.prompts), "expand"])


def test_the_table_of_stages_is_light() -> None:
    """Airflow's DAGs may read it as they are parsed."""
    code = "import sys; import taskgalaxy_ops.generation.stages; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy", "pyarrow", "boto3", "openai", "pydantic", "PIL"}.isdisjoint(loaded)


# A setting that came later changes nothing that was hashed before it: this was the hash when there were no formats.
_AS_BEFORE = "0bff7ac04812d1f8844b4b03a030cced62212caeb0753e0cc57424998169d678"


def model(name: str) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name}


def plain(**more: Any) -> dict[str, Any]:
    return {"teacher": model("t"), "judges": [model("a"), model("b"), model("c")], **more}


def test_the_formats_by_default_are_not_in_what_is_kept_of_settings() -> None:
    of_then = {"near_duplicate": 0.93}  # the default has changed since
    kept = parse_settings(plain(taxonomy=of_then)).model_dump(mode="json")
    assert "formats" not in kept["release"]
    assert fingerprint("settings", kept) == _AS_BEFORE
    for same in (["llava", "parquet"], ["parquet", "llava"]):
        assert parse_settings(plain(taxonomy=of_then, release={"formats": same})).model_dump(mode="json") == kept
    assert ReleaseSettings().formats == ("llava", "parquet")


def test_formats_are_named_and_those_that_ship_stay(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"release\.formats\.2 is 'xml': Input should be 'llava', 'parquet', 'mess"):
        parse_settings(plain(release={"formats": ["llava", "parquet", "xml"]}))
    with pytest.raises(SettingsError, match="parquet is missing"):
        parse_settings(plain(release={"formats": ["llava"]}))
    with pytest.raises(SettingsError, match="a format is there twice"):
        parse_settings(plain(release={"formats": ["llava", "parquet", "llava"]}))


def test_a_packages_form_has_its_prompt_and_its_version_in_keys(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskgalaxy_ops.generation.stages.write import reader, write_template, written
    from taskgalaxy_ops.prompts import load_prompts
    from taskgalaxy_ops.records import Answer, Pair
    from taskgalaxy_ops.settings import Model

    install("former", _FORM, question_forms={"hint": "former:HINT"})
    monkeypatch.setattr(QUESTION_FORMS, "_brought", None)
    monkeypatch.setattr(QUESTION_FORMS, "_loaded", {})
    settings = parse_settings(plain(write={"variants": ["hint"]}, prompts={"write_hint": "x.md"}))
    assert load_prompts({}, settings.write.variants)["write_hint"] == "Give a hint."

    teacher = Model(**model("t"))
    template = write_template("Give a hint.", teacher, "hint")
    item = {"task_type": "a~b"}
    key = template.unit("i" * 64, item).key
    import former  # type: ignore[import-not-found]

    object.__setattr__(former.HINT, "version", "2")
    again = write_template("Give a hint.", teacher, "hint")
    assert again.unit("i" * 64, item).key != key
    assert write_template("Give a hint.", teacher, "plain").form is None

    assert list(template.schema["properties"]) == ["index", "question", "answer", "hint", "sure"]
    entry = {"question": "Q?", "answer": "A", "hint": " look up ", "sure": True}
    answer = reader(teacher, "hint").read(item, entry)
    assert answer == Answer({"question": "Q?", "answer": "A", "hint": "look up", "sure": True})
    with pytest.raises(MalformedReplyError, match="a hint is wanted"):
        template.read(item, {**entry, "hint": ""})
    unit = template.unit("i" * 64, item)
    (pair,) = written("hint", [unit], {unit.key: answer}).pairs
    assert isinstance(pair, Pair) and (pair.variant, pair.reasoning) == ("hint", "Hint: look up")
    declined = template.read(item, {**entry, "question": "", "answer": "", "hint": ""})
    assert [r.reason for r in written("hint", [unit], {unit.key: declined}).rejects] == ["declined"]


_FORM = """
from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.models.request import MalformedReplyError


def check(reply):
    if not reply["hint"]:
        raise MalformedReplyError("a hint is wanted")


HINT = QuestionForm(
    prompt="Give a hint.\\n",
    reply={"question": str, "answer": str, "hint": str, "sure": bool},
    check=check,
    texts=lambda reply: Texts(reply["question"], reply["answer"], f"Hint: {reply['hint']}" if reply["hint"] else None),
    reasons=True,
    version="1",
)
"""


def test_a_reply_says_by_which_packages_form_it_is_read_again(
    install: Install, tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("former", _NOTED, question_forms={"noted": "former:NOTED"})
    monkeypatch.setattr(QUESTION_FORMS, "_brought", None)
    monkeypatch.setattr(QUESTION_FORMS, "_loaded", {})
    seeds = {"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))}
    chosen = tiny_settings(tiny_images(tmp_path / "images", 2), taxonomy=seeds, write={"variants": ["plain", "noted"]})
    workspace = tiny_workspace(chosen)
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace, pipeline.RunOptions(last_stage="write")).pending == 0
    (shard,) = workspace.registry.shards()
    forms = [(reply["stage"], reply["note"].get("form")) for reply in Journal(workspace.store, shard.id).replies()]
    assert set(forms) == {("filter", None), ("write", None), ("write", "noted")}

    out, other = tmp_path / "answers.jsonl", tiny_workspace(chosen)
    answers.export(workspace, out)
    pipeline.ingest(other, "mine")
    assert answers.load(other, out).units == sum(len(json.loads(line)["answers"]) for line in out.open())
    assert pipeline.generate(other, pipeline.RunOptions(last_stage="write")).usage.calls == 0
    copied = [reply["note"].get("form") for reply in Journal(other.store, shard.id).replies()]
    assert "noted" in copied and None in copied


_NOTED = """
from taskgalaxy_ops.generation.forms import QuestionForm

NOTED = QuestionForm(prompt="Write.", version="1")
"""
