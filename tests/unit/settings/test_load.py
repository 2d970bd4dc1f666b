"""Settings: whatever is wrong is named with its field, its value and what to do; what is right is taken as written."""

import re
from pathlib import Path

import pytest
import yaml

import taskgalaxy_ops
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.settings import EXAMPLE, Settings, load_settings, parse_settings


def model(name, **fields):
    return {"name": name, "base_url": "https://api.openai.com/v1", "model": f"gpt-{name}"} | fields


def plain(**fields):
    """The least that settings need, and more."""
    return {
        "teacher": model("t"),
        "judges": [model("a"), model("b"), model("c")],
        "sources": {"mine": {"location": "x"}},
    } | fields


def changed(path, value):
    """The plain settings with one field set, named by its path such as ``judges.0.temperature``."""
    raw = plain()
    *above, last = path.split(".")
    place = raw
    for name in above:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    place[last] = value
    return raw


def complaint(raw):
    with pytest.raises(SettingsError) as caught:
        parse_settings(raw, "my.yaml")
    return str(caught.value)


def written(tmp_path, text):
    file = tmp_path / "my.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_the_least_that_is_needed_takes_the_defaults():
    found = parse_settings(plain())
    assert (found.match.k, found.vote.quorum, found.vote.audit_share, found.write.variants) == (10, 2, 0.1, ("plain",))
    assert (found.budget.max_cost, found.budget.max_calls) == (5.0, 5000), "small, so that nobody is surprised"
    assert found.store == "file://./galaxy"
    assert not found.simulated
    assert parse_settings(changed("judges.2.simulated", True)).simulated
    assert parse_settings(changed("teacher.simulated", True)).simulated


def test_settings_are_values_that_survive_being_written_down():
    found = parse_settings(plain(sources={"ü ~1": {"location": "x"}}))
    again = parse_settings(found.model_dump(mode="json"))
    assert again == found
    assert fingerprint("settings", again.model_dump(mode="json")) == fingerprint(
        "settings", found.model_dump(mode="json")
    )
    with pytest.raises(Exception, match="frozen"):
        found.store = "other"


@pytest.mark.parametrize("name", ["settings/example.yaml", "demo/demo.yaml"])
def test_the_files_that_ship_are_right(name):
    text = (Path(taskgalaxy_ops.__file__).parent / name).read_text().replace("BASE_URL", "http://127.0.0.1:1/v1")
    assert parse_settings(yaml.safe_load(text)).teacher.name
    assert EXAMPLE.name == "example.yaml"


@pytest.mark.parametrize("place", ["owner/name-2.5_b", "name", "/a folder/x", "~/x", "./x", "../x/y/z"])
def test_a_model_may_be_weights_of_a_hub_or_a_folder(place):
    found = parse_settings(changed("teacher.base_url", f"transformers:{place}"))
    assert found.teacher.weights == place
    assert found.judges[0].weights is None


@pytest.mark.parametrize("place", ["", "a/b/c", "owner/", "owner name/x", "https://huggingface.co/owner/name"])
def test_a_place_that_is_neither_is_named(place):
    text = complaint(changed("teacher.base_url", f"transformers:{place}"))
    assert f"'transformers:{place}' names neither a hub's model nor a folder: write transformers:owner/name" in text


@pytest.mark.parametrize(
    ("field", "value"), [("device", "gpu"), ("dtype", "int4"), ("batch", 0), ("wait_seconds", -1), ("trust", True)]
)
def test_how_a_model_runs_here_is_checked(field, value):
    raw = changed("teacher.base_url", "transformers:owner/name")
    raw["teacher"]["in_process"] = {field: value}
    assert f"teacher.in_process.{field}" in complaint(raw)


def test_a_model_behind_a_url_is_not_loaded_here():
    text = complaint(changed("judges.1.in_process", {"batch": 2}))
    assert "judges.1: in_process is for a base_url that begins with transformers: (remove one of them)" in text


def test_images_by_url_need_a_store_that_has_urls_and_a_model_that_reads_them():
    raw = changed("judges.1.images", "url")
    text = complaint(raw)
    assert "judges.1.images is 'url', but the store 'file://./galaxy' is a folder" in text
    assert "set it to data, or store to s3://bucket/prefix" in text
    found = parse_settings(raw | {"store": "s3://bucket/x"})
    assert [judge.images for judge in found.judges] == ["data", "url", "data"]
    raw = changed("teacher.images", "url") | {"store": "s3://bucket/x"}
    raw["teacher"]["base_url"] = "transformers:owner/name"
    assert "teacher: images is 'url', which weights in this process cannot read: set images to data" in complaint(raw)


# Every message names the field, the value and the fix.

WRONG = [
    ("match.k", 0, "greater than or equal to 1"),
    ("match.k", 1001, "less than or equal to 1000"),
    ("match.k", "ten", "valid integer"),
    ("match.k", 1.5, "valid integer"),
    ("match.k", None, "valid integer"),
    ("match", 10, "valid dictionary"),
    ("ingest.max_pixels", 0, "greater than or equal to 1"),
    ("ingest.min_side", -1, "greater than or equal to 1"),
    ("ingest.shard_images", 0, "greater than or equal to 1"),
    ("sources", ["a"], "valid dictionary"),
    ("sources.mine", "a/folder", "valid dictionary"),
    ("sources.mine.location", 7, "valid string"),
    ("sources.mine.limit", 0, "greater than or equal to 1"),
    ("sources.mine.suffixes", ".jpg", "valid tuple"),
    ("encoder.name", "clip", "'conse', 'open_clip' or 'transformers'"),
    ("teacher.base_url", "api.openai.com/v1", "should match pattern"),
    ("teacher.base_url", "ftp://x", "should match pattern"),
    ("teacher.base_url", "Transformers:owner/name", "should match pattern"),
    ("teacher.model", "", "at least 1 character"),
    ("teacher.name", "a/b", "should match pattern"),
    ("teacher.name", "a\nb", "should match pattern"),
    ("teacher.name", "x" * 101, "at most 100 characters"),
    ("teacher.temperature", 2.1, "less than or equal to 2"),
    ("teacher.temperature", float("nan"), "finite number"),
    ("teacher.max_tokens", 15, "greater than or equal to 16"),
    ("teacher.concurrency", 0, "greater than or equal to 1"),
    ("teacher.timeout_seconds", 0, "greater than 0"),
    ("teacher.timeout_seconds", float("inf"), "finite number"),
    ("teacher.retries", -1, "greater than or equal to 0"),
    ("teacher.repairs", -1, "greater than or equal to 0"),
    ("teacher.structured", "xml", "'json_schema', 'json_object' or 'text'"),
    ("teacher.image_side", 32, "greater than or equal to 64"),
    ("teacher.image_quality", 101, "less than or equal to 100"),
    ("teacher.price", 2.5, "valid dictionary"),
    ("teacher.price.input", -1, "greater than or equal to 0"),
    ("teacher.price.output", float("inf"), "finite number"),
    ("teacher.simulated", "perhaps", "valid boolean"),
    ("judges", [], "at least 1 item"),
    ("judges", {"a": 1}, "valid tuple"),
    ("judges.1.temperature", -0.1, "greater than or equal to 0"),
    ("judges.1.price.input", -0.1, "greater than or equal to 0"),
    ("taxonomy.near_duplicate", 0, "greater than 0"),
    ("taxonomy.near_duplicate", 1.1, "less than or equal to 1"),
    ("taxonomy.children", 0, "greater than or equal to 1"),
    ("prompts.vote", 7, "valid string"),
    ("write.variants", [], "at least 1 item"),
    ("write.variants.0", "short", "'plain', 'chain_of_thought' or"),
    ("vote.quorum", 0, "greater than or equal to 1"),
    ("vote.audit_share", 1.5, "less than or equal to 1"),
    ("budget.max_cost", -1, "greater than or equal to 0"),
    ("budget.max_cost", float("inf"), "finite number"),
    ("budget.max_calls", 1.5, "valid integer"),
    ("release.cap", 0, "greater than or equal to 1"),
    ("release.validation", 1, "less than 1"),
    ("release.near_duplicate_bits", -2, "greater than or equal to -1"),
    ("run.units_a_request", 0, "greater than or equal to 1"),
    ("run.lease_seconds", 1, "greater than or equal to 3"),
    ("run.homes_at_once", 0, "greater than or equal to 1"),
    ("run.block_calls", 0, "greater than or equal to 1"),
]


@pytest.mark.parametrize(("path", "value", "fix"), WRONG, ids=[f"{path}={value!r:.20}" for path, value, _ in WRONG])
def test_a_wrong_value_is_named_with_its_field_and_what_it_should_be(path, value, fix):
    raw = changed("write.variants", [value]) if path == "write.variants.0" else changed(path, value)
    head, line = complaint(raw).split("\n")
    assert head == "settings my.yaml: 1 mistake(s)."
    assert line.startswith(f"  {path} is {value!r:.50}")
    assert fix in line


def test_every_mistake_is_told_at_once():
    judge = model("a", temperature=9, price={"input": -1})
    raw = {"teacher": {"name": "t"}, "judges": [judge], "match": {"k": 0, "kk": 1}, "x": 1}
    assert complaint(raw).splitlines() == [
        "settings my.yaml: 7 mistake(s).",
        "  match.k is 0: Input should be greater than or equal to 1",
        "  match.kk: no such field: remove it or mend its name",
        "  teacher.base_url: is missing: add it",
        "  teacher.model: is missing: add it",
        "  judges.0.price.input is -1: Input should be greater than or equal to 0",
        "  judges.0.temperature is 9: Input should be less than or equal to 2",
        "  x: no such field: remove it or mend its name",
    ]


@pytest.mark.parametrize(
    "path",
    ["matches", "match.top", "teacher.url", "judges.0.key", "sources.mine.path", "s3.bucket", "budget.cost", "run.n"],
)
def test_an_unknown_field_is_named(path):
    assert f"  {path}: no such field: remove it or mend its name" in complaint(changed(path, 7)).splitlines()


def test_an_unknown_prompt_is_named_with_the_known_ones():
    text = complaint(changed("prompts.filters", "x.md"))
    assert "prompts.filters" in text
    for name in ("filter", "write_plain", "write_chain_of_thought", "vote", "expand"):
        assert f"'{name}'" in text


def test_a_source_has_a_name_that_can_be_shown():
    for name in ("a/b", "a\\b", "a\nb", "", "x" * 101):
        assert "sources" in complaint(changed("sources", {name: {"location": "x"}}))
    for name in ("my photos", "ü", "a.b", "-rf", "日本"):
        assert name in parse_settings(changed("sources", {name: {"location": "x"}})).sources


def test_a_long_value_is_cut():
    line = complaint(changed("match.k", "x" * 5000)).splitlines()[1]
    assert len(line) < 200
    assert "…" in line


def test_secrets_do_not_get_into_a_message():
    """Who writes a key where its variable's name belongs, or under a name of their own, must not find it in a log."""
    secret = "sk-proj-0123456789"
    for path in ("teacher.api_key_env", "teacher.api_key", "judges.1.token", "openai_key", "s3.secret"):
        text = complaint(changed(path, secret))
        assert path in text
        assert secret not in text


# What fits alone and not together


def test_a_quorum_that_no_pair_could_reach():
    text = complaint(plain(vote={"quorum": 4}))
    assert text.endswith("vote.quorum is 4, but there are 3 judges: lower it")
    assert "(whole file):" in text
    assert parse_settings(plain(vote={"quorum": 3})).vote.quorum == 3
    assert "there are 1 judges" in complaint(plain(judges=[model("a")]))
    assert parse_settings(plain(judges=[model("a")], vote={"quorum": 1})).judges[0].name == "a"


def test_two_judges_of_one_name():
    text = complaint(plain(judges=[model("a"), model("b"), model("a", model="other")]))
    assert "  judges: judges need different names, not ['a', 'b', 'a']" in text.splitlines()


def test_two_judges_that_are_one():
    """The same model asked the same is one unit with one reply: it must not count as two votes."""
    same = {"model": "gpt-4o"}
    text = complaint(plain(judges=[model("a", **same), model("b"), model("c", **same, base_url="http://elsewhere/v1")]))
    assert "'a' and 'c' are one judge, since they ask 'gpt-4o' the same" in text
    assert "another model, revision or temperature" in text
    for other in ({"revision": "2"}, {"temperature": 0.5}, {"image_side": 512}, {"image_quality": 50}):
        assert parse_settings(plain(judges=[model("a", **same), model("c", **same, **other)])).judges


def test_a_teacher_and_a_judge_of_one_name_are_one_model():
    text = complaint(plain(judges=[model("t", base_url="http://elsewhere/v1"), model("b")]))
    assert text.endswith("teacher and a judge are both named 't', but differ: rename one")
    assert parse_settings(plain(judges=[model("t"), model("b")]))


def test_a_split_that_leaves_nothing():
    text = complaint(plain(release={"validation": 0.5, "test": 0.5}))
    assert text.endswith("release.validation and release.test leave nothing to train on: lower them")


DAGS = "backfill, doctor, finetune, generate, ingest, release, taxonomy, upkeep, watch"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (24, f": 24 does not say for which DAG: write {{generate: 24}} (the DAGs are {DAGS})"),
        ({"galaxy_generate": 24}, f": 'galaxy_generate' is no DAG: name one of {DAGS}, without galaxy_"),
        ({"generate": 0}, ".generate is 0: Input should be greater than 0"),
        ({"generate": 10_000}, ".generate is 10000: Input should be less than or equal to 8760"),
        (
            {"generate": "soon"},
            ".generate is 'soon': Input should be a valid number, unable to parse string as a number",
        ),
        (["generate"], " is ['generate']: Input should be a valid dictionary or instance of DeadlineHours"),
    ],
)
def test_a_deadline_is_hours_of_a_dag(value, said):
    assert complaint(changed("airflow.deadline_hours", value)).splitlines()[1:] == [f"  airflow.deadline_hours{said}"]


def test_deadlines_are_off_and_leave_the_settings_hash_as_it_was():
    assert parse_settings(changed("airflow.deadline_hours", {"generate": 24})).airflow.deadline_hours.generate == 24
    for raw in (plain(), changed("airflow.deadline_hours", {}), changed("airflow.deadline_hours", {"watch": None})):
        assert "deadline_hours" not in parse_settings(raw).model_dump(mode="json")["airflow"]


# Files


def test_a_file_is_read_with_overrides_of_whole_fields(tmp_path):
    file = written(tmp_path, yaml.safe_dump(plain(store="file:///a", match={"k": 3}), allow_unicode=True))
    assert load_settings(file).match.k == 3
    found = load_settings(file, {"store": "file:///b", "match": {}})
    assert (found.store, found.match.k) == ("file:///b", 10)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match=r"settings .*gone\.yaml: no such file\. `taskgalaxy settings` prints one"):
        load_settings(tmp_path / "gone.yaml")


BAD_FILES = {
    "open bracket": ("a: [", "line 1"),
    "tab": ("store: x\n\tmatch: 1", "line 2"),
    "field twice": ("store: a\nmatch: {k: 1}\nstore: b", "'store' is there twice: remove one.*line 3"),
    "source twice": ("sources:\n  a: {location: x}\n  a: {location: y}", "'a' is there twice: remove one.*line 3"),
    "NUL": ("store: \0", "special characters are not allowed"),
    "not UTF-8": (b"store: \xff", "utf-8"),
    "python object": ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    "list for a key": ("[a]: 1", "unhashable"),
    "no such date": ("a: 2024-13-45", "month must be in"),
    "two documents": ("a: 1\n---\nb: 2", "single document"),
    "unknown alias": ("a: *b", "undefined alias"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_yaml_says_where(tmp_path, kind):
    text, why = BAD_FILES[kind]
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text))
    assert re.search(rf"(?s)^settings .*my\.yaml: cannot be read as YAML \(.*{why}", str(caught.value))


@pytest.mark.parametrize(("text", "kind"), [("- a", "list"), ("text", "str"), ("7", "int"), ("2024-01-01", "date")])
def test_a_file_that_is_no_mapping(tmp_path, text, kind):
    with pytest.raises(SettingsError, match=rf"must be `field: value` lines, not a {kind}"):
        load_settings(written(tmp_path, text))


@pytest.mark.parametrize("text", ["", "# only a comment", "---", "{}"])
def test_an_empty_file_lacks_the_models(tmp_path, text):
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text))
    assert str(caught.value).splitlines()[1:] == ["  teacher: is missing: add it", "  judges: is missing: add it"]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


def test_anchors_and_merges_are_yaml_like_any_other(tmp_path):
    text = """
x: &base {base_url: "http://a/v1", model: m}
teacher: {<<: *base, name: t}
judges:
  - &one {<<: *base, name: a}
  - {<<: *one, name: b, model: n}
"""
    raw = yaml.safe_load(text)
    with pytest.raises(SettingsError, match=r"1 mistake\(s\)\.\n  x: no such field"):
        load_settings(written(tmp_path, text))
    raw.pop("x")
    assert [judge.model for judge in parse_settings(raw).judges] == ["m", "n"]


def test_every_setting_can_be_left_out_but_the_models():
    needed = {name for name, field in Settings.model_fields.items() if field.is_required()}
    assert needed == {"teacher", "judges"}
