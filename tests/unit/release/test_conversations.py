"""Samples of several turns in a release: every turn is in every file, before and after images are taken out."""

import io
import json

import pyarrow.parquet as pq
import pytest

from taskgalaxy_ops.records import Pair, Reason, pair_id, turns_as_text
from taskgalaxy_ops.release.redact import redacted
from taskgalaxy_ops.settings import ReleaseSettings
from unit.release.test_publish import files_of, image_of, loaded, pair_of, plan_of, release_inputs

ALL = ReleaseSettings(validation=0, test=0)
TURNS = (("How many cats?", "2"), ("Which is larger?", "The | black <s> one."), ("And its eyes?", "Green."))


def talk_of(number: int, *turns: tuple[str, str]) -> Pair:
    (question, answer), *later = turns
    image, further = image_of(number).image, turns_as_text(later)
    name = pair_id(image, "ocr~words", "multi_turn", question, answer, None, further)
    return Pair(name, image, "ocr~words", "multi_turn", question, answer, None, further)


@pytest.fixture
def files() -> dict[str, bytes]:
    held = [image_of(number) for number in range(2)]
    return files_of(plan_of(release_inputs([talk_of(0, *TURNS), pair_of(held[1])], held), ALL))


def test_llava_has_all_turns_and_the_picture_in_the_first(files):
    rows = {len(row["conversations"]): row["conversations"] for row in json.loads(files["llava/train.json"])}
    assert [turn["from"] for turn in rows[6]] == ["human", "gpt"] * 3
    values = ["<image>\nHow many cats?", "2", "Which is larger?", "The | black ‹s› one.", "And its eyes?", "Green."]
    assert [turn["value"] for turn in rows[6]] == values
    assert rows[2][0]["value"] == "<image>\nWhat?"


def test_parquet_has_a_column_of_further_turns_where_a_sample_has_some(files, tmp_path):
    rows = {row["variant"]: row for row in loaded(tmp_path, files.items())["train"]}
    further = [{"question": "Which is larger?", "answer": "The | black ‹s› one."}]
    further += [{"question": "And its eyes?", "answer": "Green."}]
    assert (rows["multi_turn"]["question"], rows["multi_turn"]["answer"]) == TURNS[0]
    assert (rows["multi_turn"]["further_turns"], rows["plain"]["further_turns"]) == (further, [])
    held = [image_of(1)]
    (table,) = (
        raw for path, raw in files_of(plan_of(release_inputs([pair_of(held[0])], held), ALL)).items() if "data/" in path
    )
    assert "further_turns" not in pq.read_schema(io.BytesIO(table)).names


def test_the_card_shows_the_turns_and_counts_their_special_tokens(files):
    card = files["README.md"].decode()
    assert "1. How many cats?<br>2. Which is larger?<br>3. And its eyes?" in card
    assert "1 sample names special tokens" in card


def test_nothing_of_a_conversation_is_left_once_its_image_is_taken_out(files):
    gone = talk_of(0, *TURNS)
    left = {path: redacted(path, raw, frozenset({gone.image}), frozenset({gone.pair})) for path, raw in files.items()}
    assert [len(row["conversations"]) for row in json.loads(left["llava/train.json"])] == [2]
    (row,) = pq.read_table(io.BytesIO(left["data/train-00000-of-00001.parquet"])).to_pylist()
    assert (row["variant"], row["further_turns"]) == ("plain", [])
    assert b"its eyes" not in left["README.md"]


def test_conversations_that_differ_in_a_later_question_are_no_duplicates():
    held = [image_of(0)]
    samples = [talk_of(0, *TURNS), talk_of(0, *TURNS[:2]), talk_of(0, *TURNS[:2], ("and its EYES", "Blue."))]
    plan = plan_of(release_inputs(samples, held), ALL)
    (out,) = plan.rejects()
    assert out.reason == Reason.DUPLICATE_PAIR and out.pair == max(samples[0].pair, samples[2].pair)
    assert plan.content_hash != plan_of(release_inputs(samples[:1], held), ALL).content_hash
