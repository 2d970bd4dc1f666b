"""Mixtures: drawn by hash and weight, whole in their folder, resumable, and told in full."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import base_sets as sets
import datasets
import pytest
import yaml
from releases import released, workspace

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.mixing import pictures
from taskgalaxy_ops.release.mixing.mix import Mixed, mix
from taskgalaxy_ops.release.mixing.settings import Mixture, MixturePart, load_mixture
from taskgalaxy_ops.release.mixing.shares import taken, wanted
from taskgalaxy_ops.settings import validated
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

ALL = ("llava", "sharegpt", "messages", "swift")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A release of 8 images with two samples each."""
    made = workspace(tmp_path_factory.mktemp("store"))
    released(made, 8, test=0.2)
    return made


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """The four sets as parts of a mixture."""
    data = tmp_path / "data"
    sharegpt4v, allava = sets.sharegpt4v(data), sets.allava(data)
    return {
        "sharegpt4v": {"files": [str(sharegpt4v)], "images": str(data), "licence": "CC-BY-NC-4.0"},
        "allava": {"files": list(map(str, allava)), "images": str(data), "licence": "Apache-2.0"},
        "cambrian": {"files": [str(sets.cambrian(data))], "images": str(data)},
        "onevision": {"files": [str(sets.onevision(data / "onevision"))], "layout": "onevision"},
    }


def mixture(parts: dict[str, Any], samples: int | None = None) -> Mixture:
    raw = {"samples": samples, "parts": [{"name": name, **part} for name, part in parts.items()]}
    return validated(Mixture, raw, "mixture")


def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "llava" / "train.json").read_text())


def questions(folder: Path, part: str) -> set[str]:
    return {row["conversations"][0]["value"] for row in rows(folder) if row["source"] == part}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_four_sets_and_a_release_are_mixed_and_loaded_as_they_lie(
    store: Workspace, parts: dict[str, Any], tmp_path: Path
) -> None:
    to = tmp_path / "out"
    found = mix(mixture({"ours": {"release": "latest"}, **parts}, 20), to, ALL, store)
    assert (found.samples, Counter(row["source"] for row in rows(to))) == (
        4 + 4 + 2 + 3 + 4,
        {"ours": 4, "sharegpt4v": 4, "allava": 2, "cambrian": 3, "onevision": 4},
    )
    for row in rows(to):
        for image in [row["image"]] if "image" in row else []:
            raw = (to / image).read_bytes()
            assert Path(image).stem == sha256_hex(raw) and row["conversations"][0]["value"].startswith("<image>\n")
    cache = str(tmp_path / "cache")
    table = datasets.load_dataset(str(to / "messages"), cache_dir=cache)["train"]
    assert [row["id"] for row in table] == [row["id"] for row in rows(to)]
    assert {len(row["images"]) for row in table} == {0, 1} and all(image.size for r in table for image in r["images"])
    assert all(row["simulated"] == (row["source"] == "ours") for row in table)
    info = json.loads((to / "sharegpt/dataset_info.json").read_text())["taskgalaxy"]
    lined = datasets.load_dataset("json", data_files=str(to / "sharegpt" / info["file_name"]), cache_dir=cache)["train"]
    assert all((to / "sharegpt" / image).is_file() for row in lined for image in row[info["columns"]["images"]])
    assert len((to / "swift/train.jsonl").read_text().splitlines()) == found.samples


def test_what_went_in_is_told(store: Workspace, parts: dict[str, Any], tmp_path: Path) -> None:
    mix(mixture({"ours": {"release": "v000001", "weight": 2}, **parts}, 24), tmp_path / "out", ["llava"], store)
    told = json.loads((tmp_path / "out/mixture.json").read_text())
    ours, sharegpt4v, _, cambrian, onevision = told["parts"]
    assert told["complete"] and told["samples"] == 8 + 4 + 2 + 3 + 4 and told["files"].keys() == {"llava/train.json"}
    assert (ours["kind"], ours["identity"]) == ("release", publish.published(store)[0].manifest_sha256)
    assert (ours["wanted"], ours["taken"], ours["licences"]) == (8, 8, {"CC0-1.0": 8})
    assert (sharegpt4v["rows"], sharegpt4v["usable"], sharegpt4v["layout"]) == (6, 6, "llava")
    assert cambrian["left_out"] == {"it has a system turn": 1} and cambrian["licences"] == {"unknown": 3}
    assert told["unknown_licence"] == {"cambrian": 3, "onevision": 4} and onevision["usable"] == 8
    assert told["licences"] == {"CC0-1.0": 8, "CC-BY-NC-4.0": 4, "Apache-2.0": 2, "unknown": 7}
    assert told["base_data_decontaminated"] is False


def test_a_row_is_drawn_by_what_it_says(parts: dict[str, Any], tmp_path: Path) -> None:
    """More weight keeps what was drawn; other rows, their order and the folder's name move nothing."""
    one = {name: parts[name] for name in ("sharegpt4v", "onevision")}
    drawn = []
    for weight in (1, 2, 5):
        one["sharegpt4v"]["weight"] = weight
        mix(mixture(one, 6), tmp_path / f"out{weight}", ["llava"])
        drawn.append(questions(tmp_path / f"out{weight}", "sharegpt4v"))
    assert list(map(len, drawn)) == [3, 4, 5] and drawn[0] < drawn[1] < drawn[2]
    del one["onevision"]
    whole = tmp_path / "data/sharegpt4v_instruct_gpt4-vision_cap100k.json"
    moved = tmp_path / "moved.jsonl"
    sets.lines(moved, list(reversed(json.loads(whole.read_text()))))
    one["sharegpt4v"]["files"] = [str(moved)]
    mix(mixture(one, 3), tmp_path / "again", ["llava"])
    assert questions(tmp_path / "again", "sharegpt4v") == drawn[0]


def test_the_same_mixture_gives_the_same_files(store: Workspace, parts: dict[str, Any], tmp_path: Path) -> None:
    wanted = mixture({"ours": {"release": "latest"}, **parts}, 16)
    found = [mix(wanted, tmp_path / name, ALL, store) for name in ("a", "b", "a")]
    first, second = (files(tmp_path / name) for name in ("a", "b"))
    assert {name: raw for name, raw in first.items() if name != ".copied"} == {
        name: raw for name, raw in second.items() if name != ".copied"
    }
    assert len({each.rows_sha256 for each in found}) == 1


def test_a_killed_run_goes_on_and_reads_no_image_twice(
    store: Workspace, parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, to = mixture({"ours": {"release": "latest"}, **parts}, 16), tmp_path / "out"
    whole = mix(wanted, tmp_path / "whole", ALL, store)
    written: list[Path] = []

    def write(local: Path, raws: list[bytes], kill_at: int = 0) -> None:
        written.append(local)
        if len(written) == kill_at:
            local.parent.mkdir(parents=True, exist_ok=True)
            local.with_name(f"{local.name}.part").write_bytes(raws[0][:5])
            raise KeyboardInterrupt
        original(local, raws)

    original = pictures.write_file
    monkeypatch.setattr(pictures, "write_file", lambda local, raws: write(local, raws, 5))
    monkeypatch.setattr(pictures, "_AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        mix(wanted, to, ALL, store)
    assert json.loads((to / "mixture.json").read_text())["complete"] is False
    with (to / ".copied").open("a") as notes:
        notes.write("half a li")
    assert mix(wanted, to, ALL, store).rows_sha256 == whole.rows_sha256
    assert len(written) <= whole.images + 1 and not list(to.rglob("*.part"))
    count = len(written)
    mix(wanted, to, ALL, store)
    assert len(written) == count
    lost = {"mixture.json", ".copied"}
    assert {k: v for k, v in files(to).items() if k not in lost} == {
        k: v for k, v in files(tmp_path / "whole").items() if k not in lost
    }


def test_what_is_not_in_the_mixture_any_more_leaves_its_folder(
    parts: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = workspace(tmp_path_factory.mktemp("taken"))
    released(made, 8, test=0)
    to = tmp_path / "out"
    ours = {"ours": {"release": "latest", "weight": 16}}
    before = mix(mixture({**ours, "sharegpt4v": {**parts["sharegpt4v"], "weight": 6}}), to, ALL, made)
    (to / "notes.txt").write_text("mine")
    gone = next(iter(released_images(made)))
    publish.withdraw(made, 1, {gone})
    after = mix(mixture(ours), to, ["llava"], made)
    assert (before.samples, before.images, after.samples, after.images) == (16 + 6, 8 + 6, 14, 7)
    assert len(list(to.glob("images/*/*"))) == 7
    assert {name for name in files(to) if not name.startswith("images/")} == {
        "mixture.json", ".copied", "notes.txt", "llava/train.json",
    }  # fmt: skip


def released_images(made: Workspace) -> list[str]:
    return sorted(listed.key.rpartition("/")[2][:64] for listed in made.store.list(f"{keys.release(1)}images/"))


def test_images_that_cannot_be_had_are_counted_and_other_rows_drawn(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = sets.sharegpt4v(data, 12)
    for number in range(4):
        (data / f"coco/train2017/{number:012d}.png").write_bytes(
            b"<html>no picture" if number else b"\x89PNG\r\n\x1a\nx"
        )
    (data / "coco/train2017/000000000004.png").unlink()
    found = mix(mixture({"set": {"files": [str(file)], "images": str(data)}}), tmp_path / "out", ["llava"])
    assert found.parts[0].left_out == {
        "its image cannot be opened": 4,
        "its image file is missing or empty": 1,
    }
    assert (found.samples, found.parts[0].usable, found.images) == (7, 7, 7)
    few = mix(mixture({"set": {"files": [str(file)], "images": str(data)}}, 5), tmp_path / "few", ["llava"])
    assert few.samples == 5 and questions(tmp_path / "few", "set") < questions(tmp_path / "out", "set")
    with pytest.raises(SourceError, match=r"part set: no row .*12: its image file is missing or empty"):
        mix(mixture({"set": {"files": [str(file)], "images": str(tmp_path)}}), tmp_path / "none", ["llava"])


def test_hostile_names_reach_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(sets.png(1))
    named = ["../secret.png", str(tmp_path / "secret.png"), "file:///etc/passwd", "a.png"]
    sets.picture(tmp_path / "images", "a.png", 2)
    file = sets.lines(
        tmp_path / "odd.jsonl",
        [{"id": "../../x", "image": name, "conversations": sets.said(f"<image>\n{name}?")} for name in named],
    )
    part = {"files": [str(file)], "images": str(tmp_path / "images")}
    found = mix(mixture({"odd": part}), tmp_path / "out", ALL)
    assert found.parts[0].left_out == {"its image is a URL": 1, "its image leads out of the folder of images": 2}
    assert sha256_hex(sets.png(1)) not in str(files(tmp_path / "out"))


def test_repeated_rows_count_once_and_repeat_takes_them_again(tmp_path: Path) -> None:
    row = {"id": 9, "conversations": sets.said("Q <s>?")}
    others = [{"id": number, "conversations": sets.said(f"Q{number}?")} for number in range(3)]
    file = sets.lines(tmp_path / "text.jsonl", [row, row, *others])
    part = {"files": [str(file)], "weight": 3}
    found = mix(mixture({"a": {**part, "repeat": True}, "b": part}, 20), tmp_path / "out", ["llava"])
    a, b = found.parts
    assert (a.rows, a.usable, a.taken, a.repeated, a.short) == (5, 4, 10, 6, 0)
    assert (b.taken, b.repeated, b.short, b.neutralised) == (4, 0, 6, 2)
    assert b.left_out == {"it repeats another row": 1}
    assert sorted(Counter(row["id"] for row in rows(tmp_path / "out")).values()) == [1, 1, 1, 1, 2, 2, 3, 3]


def test_shares_follow_the_weights() -> None:
    def part(weight: float, repeat: bool = False) -> MixturePart:
        return MixturePart(name="a", files=("f",), weight=weight, repeat=repeat)

    assert wanted([part(1), part(1), part(1)], [9, 9, 9], 10) == [4, 3, 3]
    assert wanted([part(3), part(1)], [300, 10], None) == [30, 10]
    assert wanted([part(3, True), part(1)], [3, 10], None) == [30, 10]
    assert taken([part(3), part(1)], [5, 100], 40) == [5, 10]
    assert taken([part(3, True), part(1)], [5, 100], 40) == [30, 10]
    assert wanted([part(0.1), part(0.2)], [1000, 1000], 300) == [100, 200]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"parts": []}, "parts"),
        ({"parts": [{"name": "a"}]}, "either a `release` or `files`"),
        ({"parts": [{"name": "a", "release": "latest", "files": ["f"]}]}, "either a `release` or `files`"),
        ({"parts": [{"name": "a", "release": "latest", "licence": "MIT"}]}, "licence is for base data"),
        (
            {"parts": [{"name": "a", "files": ["f"], "layout": "coco"}]},
            "'llava', 'sharegpt', 'onevision' or 'messages'",
        ),
        ({"parts": [{"name": "a", "files": ["f"], "weight": 0}]}, "weight"),
        ({"parts": [{"name": "a", "files": ["f"]}] * 2}, "different names"),
        ({"parts": [{"name": "a", "files": ["f"], "repeat": True}]}, "set samples"),
    ],
)
def test_a_wrong_mixture_is_named(tmp_path: Path, raw: dict[str, Any], told: str) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_text(yaml.safe_dump(raw))
    with pytest.raises(SettingsError, match=told):
        load_mixture(file)


def test_a_folder_of_something_else_is_left_alone(parts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(SettingsError, match="holds something else than a mixture"):
        mix(mixture({"allava": parts["allava"]}), tmp_path / "mine", ["llava"])
    with pytest.raises(SettingsError, match="--format parquet: a mixture is written as llava, sharegpt"):
        mix(mixture({"allava": parts["allava"]}), tmp_path / "out", ["parquet"])
    gone = {**parts["cambrian"], "files": [str(tmp_path / "none.json")]}
    with pytest.raises(SourceError, match=r"base data gone: .*none\.json is no file"):
        mix(mixture({"allava": parts["allava"], "gone": gone}), tmp_path / "out", ["llava"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="a release needs a store"):
        mix(mixture({"ours": {"release": "latest"}}), tmp_path / "out", ["llava"])


def test_the_command_tells_of_shares_and_warns(
    store: Workspace,
    parts: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskgalaxy_ops.cli.release_mix.workspace_of", lambda _: store)
    file = tmp_path / "mixture.yaml"
    named = {"ours": {"release": "latest", "weight": 3}, "cambrian": parts["cambrian"]}
    file.write_text(yaml.safe_dump(mixture(named, 20).model_dump(mode="json", exclude_unset=True)))
    command = ["release", "mix", str(file), "--to", str(tmp_path / "out"), "--format", "llava", "--quiet"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "UNKNOWN LICENCE: nobody states under which licence 3 rows of cambrian are" in said
    assert "cambrian: 1 rows left out: it has a system turn" in said
    assert "cambrian has 3 usable rows; its weight asks for 5" in said
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["unknown_licence"] == {"cambrian": 3} and told["parts"][0]["name"] == "ours"


def test_a_release_whose_images_are_referred_to_is_whole_and_what_is_lost_is_told(tmp_path: Path) -> None:
    made = workspace(tmp_path)
    released(made, 8, test=0, copy_images_up_to=0)
    lost = next(iter(made.store.list(keys.RENDERED))).key
    made.store.delete(lost)
    found: Mixed = mix(mixture({"ours": {"release": "latest"}}), tmp_path / "out", ["llava"], made)
    assert (found.samples, found.images) == (14, 7)
    assert found.parts[0].left_out == {"its image is not in the store any more": 2}
