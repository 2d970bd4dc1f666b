"""Each format of a release, loaded by the library that is to read it; and what is left of each after a take-down."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from taskgalaxy_ops import release
from taskgalaxy_ops.extensions import ALWAYS_RELEASED
from taskgalaxy_ops.finetune.tiny import save_tiny
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Pair, Verdict, pair_id
from taskgalaxy_ops.release import SPLITS
from taskgalaxy_ops.release.formats import webdataset as tars
from taskgalaxy_ops.release.formats.verifiable import reward, right
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.storage.parquet import to_table
from unit.release.test_publish import files_of, image_of, plan_of, release_inputs, some_material
from unit.release.test_redact import IMAGES, withdrawn

FORMATS = ("messages", "prompt_completion", "sharegpt", "swift", "webdataset")
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def made() -> Files:
    """A release in every format; of two splits alone, so that one is empty."""
    return files_of(
        plan_of(some_material(), ReleaseSettings(validation=0.0, test=0.3, formats=(*ALWAYS_RELEASED, *FORMATS)))
    )


@pytest.fixture(scope="module")
def folder(made: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a release")
    for path, raw in made.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(raw)
    return root


def told(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """LLaVA's rows by id, which a test of its own compares with the samples."""
    return {row["id"]: row for split in SPLITS for row in json.loads(files[f"llava/{split}.json"])}


def texts_of(path: str, raw: bytes) -> list[str]:
    """The rows of a file as text, and the names of a tar's members."""
    if path.endswith(".parquet"):
        return [str(row) for row in pq.read_table(io.BytesIO(raw)).to_pylist()]
    if path.endswith(".tar"):
        return [f"{name} {content!r}" for name, content in members_of(raw).items()]
    return raw.decode().split("\n")


def members_of(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_same_samples_and_loses_what_is_taken_down(made: Files, name: str) -> None:
    def held(files: Files, ids: Iterable[str]) -> set[str]:
        own = [line for path, raw in files.items() if path.startswith(f"{name}/") for line in texts_of(path, raw)]
        return {key for key in ids if any(key in line for line in own)}

    gone = {key for key, row in told(made).items() if any(image in row["image"] for image in IMAGES)}
    assert gone and held(made, told(made)) == set(told(made)) and held(made, IMAGES) == IMAGES
    after = withdrawn(made, IMAGES)
    assert held(after, told(made)) == set(told(after)) == set(told(made)) - gone and not held(after, IMAGES)
    untouched = withdrawn(made, {"0" * 64})
    assert all(raw == untouched[path] for path, raw in made.items())


def test_messages_are_what_trl_trains_on(made: Files, folder: Path) -> None:
    from transformers import AutoProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    save_tiny(folder / "model")
    collate = DataCollatorForVisionLanguageModeling(AutoProcessor.from_pretrained(folder / "model"), max_length=None)
    for name in ("messages", "prompt_completion"):
        found = datasets.load_dataset(str(folder / name), cache_dir=str(folder / "cache"))
        assert set(found) == {"train", "test"}
        for split, rows in found.items():
            assert [row["id"] for row in rows] == [row["id"] for row in json.loads(made[f"llava/{split}.json"])]
        first = found["train"][0]
        said = first.get("messages") or first["prompt"] + first["completion"]
        expected = [turn["value"].removeprefix("<image>\n") for turn in told(made)[first["id"]]["conversations"]]
        assert [message["content"][-1]["text"] for message in said] == expected
        assert [message["role"] for message in said] == ["user", "assistant"]
        assert [part["type"] for part in said[0]["content"]] == ["image", "text"]
        assert first["images"][0].size == (48, 40)
        batch = collate([found["train"][number] for number in range(3)])
        assert batch["pixel_values"].shape[0] == 3 and (batch["labels"] != -100).any()


def test_tars_are_streamed_each_image_once_with_all_its_samples(made: Files, folder: Path) -> None:
    import webdataset  # which loads torch

    rows, pictures = {}, []
    for tar in sorted((folder / "webdataset").iterdir()):
        for each in webdataset.WebDataset(str(tar), shardshuffle=False).decode("pil"):
            key, said = each["__key__"], each["json"]
            pictures.append(key)
            assert each["jpg"].size == (48, 40) and said["images"] == [f"images/{key[:2]}/{key}.jpg"]
            rows |= {sample["id"]: sample["conversations"] for sample in said["samples"]}
    assert len(pictures) == len(set(pictures)) == 30
    assert rows == {key: row["conversations"] for key, row in told(made).items()}
    tars_of = [members_of(raw) for path, raw in made.items() if path.startswith("webdataset/")]
    copies = {raw for path, raw in made.items() if path.startswith("images/")}
    assert {raw for tar in tars_of for name, raw in tar.items() if name.endswith(".jpg")} == copies


def test_tars_of_a_split_are_about_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_SHARD_BYTES", 30_000)
    plan = plan_of(some_material(), ReleaseSettings(validation=0, test=0, formats=(*ALWAYS_RELEASED, "webdataset")))
    files = [raw for path, raw in sorted(files_of(plan).items()) if path.startswith("webdataset/")]
    assert len(files) == tars.WEBDATASET.count(plan) > 5
    held = [sum(name.endswith(".json") for name in members_of(raw)) for raw in files]
    assert sum(held) == 30 and max(held) <= min(held) + 2


def rows_of(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.decode().split("\n") if line]


def test_lines_for_llama_factory_and_swift_find_their_images(made: Files, folder: Path) -> None:
    info = json.loads(made["sharegpt/dataset_info.json"])
    assert [entry["file_name"] for entry in info.values()] == [f"{split}.jsonl" for split in SPLITS]
    for name, start in (("sharegpt", folder / "sharegpt"), ("swift", folder)):
        for row in [row for split in SPLITS for row in rows_of(made[f"{name}/{split}.jsonl"])]:
            expected = told(made)[row["id"]]
            turns = row.get("conversations") or row["messages"]
            assert [turn.get("value") or turn["content"] for turn in turns] == [
                turn["value"] for turn in expected["conversations"]
            ]
            [image] = row["images"]
            assert (start / image).samefile(folder / expected["image"])


def test_what_is_only_referred_to_is_named_where_it_lies() -> None:
    rules = ReleaseSettings(validation=0, test=0, copy_images_up_to=0, formats=(*ALWAYS_RELEASED, *FORMATS))
    files = files_of(plan_of(some_material(2, 1), rules))
    where = {row["image"] for row in told(files).values()}
    assert len(where) == 2 and all(each.startswith("s3://bucket/") for each in where)
    assert {image for row in rows_of(files["sharegpt/train.jsonl"]) for image in row["images"]} == where
    assert all(name.endswith(".json") for name in members_of(files["webdataset/train-000000.tar"]))
    [path] = [path for path in files if path.startswith("messages/")]
    rows = pq.read_table(io.BytesIO(files[path])).to_pylist()
    assert {each["path"] for row in rows for each in row["images"]} == where


def sample(variant: str, answer: str, reasoning: str | None = None, number: int = 0, image: int = 0) -> Pair:
    image_id, question = image_of(image).image, f"Question {number}?"
    key = pair_id(image_id, "a~b", variant, question, answer, reasoning)
    return Pair(key, image_id, "a~b", variant, question, answer, reasoning)


CHECKS = {  # by form and answer: the check and its tolerance; what is right, and what is not
    ("plain", "12"): ("number", 0.0, "I count 12.", "There are 13"),
    ("plain", "1,250.5 kg"): ("number", 0.05, "1250.52", "1250.6"),
    ("plain", "-3"): ("number", 0.0, "It is −3", "3"),
    ("plain", "A red square"): ("exact", None, "red square.", "a blue square"),
    ("plain", "2nd"): ("exact", None, "The 2nd", "2"),
    ("chain_of_thought", "seven"): ("exact", None, "One, and six more.\n\n7", "six"),
    ("multiple_choice", "B"): ("choice", None, "The answer is B.", "A"),
    ("yes_no", "No"): ("exact", None, "no", "Yes"),
    ("grounded", "[0, 0, 500, 500]"): ("box_iou", 0.5, "[0, 0, 500, 480]", "[400, 400, 900, 900]"),
    ("plain", "It shows a man who carries a ladder."): None,
    ("long_description", "A plain. It is blue."): None,
    ("unanswerable", "There is no telling."): None,
}


def test_verifiable_rows_say_how_to_check_an_answer(tmp_path: Path) -> None:
    samples = [
        sample(form, answer, "One, and six more." if form == "chain_of_thought" else None, number)
        for number, (form, answer) in enumerate(CHECKS)
    ]
    rules = ReleaseSettings(validation=0, test=0, formats=(*ALWAYS_RELEASED, "verifiable"))
    files = files_of(plan_of(release_inputs(samples, [image_of(0)]), rules))
    [path] = [path for path in files if path.startswith("verifiable/")]
    (tmp_path / "rows.parquet").write_bytes(files[path])
    rows = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    forms = {each.pair: (each.variant, each.answer) for each in samples}
    assert {forms[row["id"]] for row in rows} == {form for form, check in CHECKS.items() if check}
    for row in rows:
        check, tolerance, good, bad = CHECKS[forms[row["id"]]] or ("", None, "", "")
        assert (row["check"], row["tolerance"]) == (check, pytest.approx(tolerance) if tolerance else tolerance)
        columns = {name: [row[name]] * 3 for name in ("answer", "check", "tolerance", "task_type")}
        said = [[{"role": "assistant", "content": text}] for text in (good, bad, "")]
        assert reward(said, **columns) == [1.0, 0.0, 0.0], row
        assert [message["role"] for message in row["prompt"]] == ["user"] and len(row["images"]) == 1


@pytest.mark.parametrize(
    ("check", "answer", "right_ones", "wrong_ones"),
    [
        (
            "choice",
            "B",
            [
                "B",
                "(b) or (B).",
                "B. A cat",
                "**B**",
                "I think B",
                "A. is wrong.\nB. Vitamin A",
                "The answer is B because",
            ],
            ["", "b", "A", "B or A.", "A big one", "Not B, but C.", "I'm sure"],
        ),
        ("exact", "No", ["no", "No.", "It is lit.\nNo, it is not."], ["", "Yes", "Yes, no doubt", "not", "nothing"]),
        ("exact", "a bus", ["Bus.", "It has wheels.\nThe bus"], ["bus stop", "no bus", ""]),
    ],
)
def test_how_an_answer_is_worded_decides_nothing(
    check: str, answer: str, right_ones: list[str], wrong_ones: list[str]
) -> None:
    assert [said for said in right_ones if not right(said, answer, check, None)] == []
    assert [said for said in wrong_ones if right(said, answer, check, None)] == []


def test_preference_pairs_have_an_accepted_answer_and_one_that_was_voted_down(tmp_path: Path) -> None:
    from transformers import AutoProcessor
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    accepted, same = sample("plain", "A cat"), sample("plain", "the cat!")
    down, worst, blind = (sample("plain", answer) for answer in ("A dog", "A <image>", "A cow"))
    corrected, alone = sample("plain", "Two", number=1), sample("plain", "Red", number=2)
    wrong, other = sample("plain", "Three", number=1), sample("plain", "A hen", number=3)
    verdicts = [Verdict(accepted.pair, True, 2, 3), Verdict(down.pair, False, 1, 3), Verdict(worst.pair, False, 0, 2)]
    verdicts += [
        Verdict(blind.pair, False, 2, 2, True),
        Verdict(same.pair, False, 0, 2),
        Verdict(alone.pair, True, 2, 2),
    ]
    verdicts += [Verdict(wrong.pair, True, 2, 2), Verdict(other.pair, False, 0, 2)]
    held = release_inputs([accepted, alone, wrong], [image_of(0)]).release_inputs()
    [shard] = held.shards
    everything = [accepted, same, down, worst, blind, alone, wrong, other]
    shard = dataclasses.replace(
        shard,
        verdicts=to_table(verdicts, Verdict),
        corrections=[corrected],
        found_wrong={wrong.pair: "by a person"},
        voted_down=to_table(everything, Pair),
    )
    rules = ReleaseSettings(validation=0, test=0, formats=(*ALWAYS_RELEASED, "preference"))
    files = files_of(release.select_samples(dataclasses.replace(held, shards=[shard]), rules))
    [path] = [path for path in files if path.startswith("preference/")]
    (tmp_path / "rows.parquet").write_bytes(files[path])
    rows = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    found = {(row["id"], row["rejected_id"]): (row["rejected"][0]["content"][0]["text"], row["margin"]) for row in rows}
    assert found == {
        (accepted.pair, down.pair): ("A dog", 0.333),
        (accepted.pair, worst.pair): (neutral("A <image>"), 0.667),
        (corrected.pair, wrong.pair): ("Three", 1.0),
    }
    assert all(row["prompt"][0]["content"][0]["type"] == "image" and len(row["images"]) == 1 for row in rows)
    save_tiny(tmp_path / "model")
    collate = DataCollatorForVisionPreference(AutoProcessor.from_pretrained(tmp_path / "model"), max_length=None)
    batch = collate(list(rows))
    assert len(batch["pixel_values"]) == len(batch["input_ids"]) == 2 * len(rows)  # chosen, then rejected
    left = withdrawn(files, {image_of(0).image})
    assert path not in left
