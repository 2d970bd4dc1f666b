"""Samples about several images in a release: all of them in every file, the same split, and none where one is gone."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import Pair, Reason, images_as_text, pair_id
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkInputs
from taskgalaxy_ops.release.decontaminate.pictures import by_file_alone
from taskgalaxy_ops.release.images import thumbnail_path
from taskgalaxy_ops.release.redact import withdraw
from taskgalaxy_ops.settings import ReleaseSettings
from unit.release.decontaminate.test_leaks import benchmark, settings
from unit.release.test_publish import files_of, image_of, loaded, pair_of, plan_of, release_inputs, sent

ALL = ReleaseSettings(validation=0, test=0)
HELD = [image_of(number) for number in range(6)]
IDS = [image.image for image in HELD]


def group_of(*numbers: int, question: str = "Which image shows more cats?") -> Pair:
    ids = [IDS[number] for number in numbers]
    first, further = ids[0], images_as_text(ids[1:])
    name = pair_id(ids, "counting~cats", "several_images", question, "image 2", None)
    return Pair(name, first, "counting~cats", "several_images", question, "image 2", further_images=further)


SAMPLE = group_of(0, 2, 1)


@pytest.fixture
def files() -> dict[str, bytes]:
    return files_of(plan_of(release_inputs([SAMPLE, pair_of(HELD[3])], HELD), ALL))


def rows_of(files: dict[str, bytes]) -> dict[str, Any]:
    (table,) = (raw for path, raw in files.items() if path.startswith("data/"))
    return {row["variant"]: row for row in pq.read_table(io.BytesIO(table)).to_pylist()}


def test_llava_lists_the_images_and_the_first_turn_has_a_place_for_each(files):
    rows = {row["id"]: row for row in json.loads(files["llava/train.json"])}
    row = rows.pop(SAMPLE.pair)
    assert [path.split("/")[-1].split(".")[0] for path in row["image"]] == [IDS[0], IDS[2], IDS[1]]
    assert [turn["value"] for turn in row["conversations"]] == [
        "<image>\n<image>\n<image>\nWhich image shows more cats?",
        "image 2",
    ]
    assert all(path in files and files[path] == sent(path.split("/")[-1].split(".")[0]) for path in row["image"])
    (other,) = rows.values()
    assert isinstance(other["image"], str) and other["conversations"][0]["value"].count("<image>") == 1


def test_parquet_has_the_further_images_with_their_bytes_and_ids_where_a_sample_has_some(files, tmp_path):
    row, plain = (rows_of(files)[variant] for variant in ("several_images", "plain"))
    assert (row["image_id"], row["further_image_ids"]) == (IDS[0], [IDS[2], IDS[1]])
    assert [each["bytes"] for each in row["further_images"]] == [sent(IDS[2]), sent(IDS[1])]
    assert len(row["sources"]) == 3, "the sources of all images, in their order"
    assert plain["further_images"] == plain["further_image_ids"] == []
    read = {each["variant"]: each for each in loaded(tmp_path, files.items())["train"]}
    assert read["several_images"]["further_images"] == [[48, 40]] * 2
    alone = files_of(plan_of(release_inputs([pair_of(HELD[3])], HELD), ALL))
    assert not {"further_images", "further_image_ids"} & rows_of(alone)["plain"].keys()


def test_the_card_shows_all_of_them_and_counts_every_image(files):
    with Pillow.open(io.BytesIO(files[thumbnail_path(SAMPLE.pair)])) as small:
        assert small.size == (3 * 48 + 2 * 8, 40)
    assert json.loads(files["manifest.json"])["counts"]["images"] == 4


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_an_image_that_is_taken_down_takes_the_sample_with_it_and_leaves_the_others_images(files, gone):
    def read(path: str) -> bytes:
        if path not in files:
            raise NotFoundError(path)
        return files[path]

    changed = dict(withdraw(files["manifest.json"], read, [IDS[gone]]))
    left = {path: raw for path, raw in {**files, **changed}.items() if raw is not None}
    assert json.loads(left["withdrawn.json"]) == {"images": [IDS[gone]], "samples": [SAMPLE.pair]}
    assert [row["id"] for row in json.loads(left["llava/train.json"])] == [pair_of(HELD[3]).pair]
    assert list(rows_of(left)) == ["plain"]
    assert not any(IDS[gone] in path for path in left) and thumbnail_path(SAMPLE.pair) not in left
    assert not any(IDS[gone].encode() in raw for path, raw in left.items() if path != "withdrawn.json")


def test_images_of_two_splits_are_in_no_release():
    in_test = [draw("split", image) < 0.5 for image in IDS]
    same = next(n for n in range(1, 6) if in_test[n] == in_test[0])
    other = next(n for n in range(1, 6) if in_test[n] != in_test[0])
    together, apart = group_of(0, same), group_of(0, other, question="Which is darker?")
    plan = plan_of(release_inputs([together, apart], HELD), ReleaseSettings(validation=0, test=0.5))
    assert [sample.pair for sample in plan.samples()] == [together.pair]
    assert [(each.pair, each.reason) for each in plan.rejects()] == [(apart.pair, Reason.TWO_SPLITS)]


def test_a_near_duplicate_among_the_further_images_leaves_the_sample_out():
    low, high = sorted([4, 5], key=IDS.__getitem__)
    held = [*HELD[:4], *(image_of(number, "ab" * 20) for number in (4, 5))]
    samples = [group_of(0, high), group_of(0, low, question="Which is darker?"), pair_of(held[4]), pair_of(held[5])]
    plan = plan_of(release_inputs(samples, held), ALL)
    rejects = {each.pair: (each.reason, each.detail) for each in plan.rejects()}
    assert rejects[samples[0].pair] == (Reason.NEAR_DUPLICATE_IMAGE, f"of {IDS[low]}")
    assert samples[1].pair not in rejects and len(rejects) == 2


def test_the_images_of_a_group_are_part_of_what_a_release_is():
    one, other = (plan_of(release_inputs([group_of(*numbers)], HELD), ALL) for numbers in ((0, 1, 2), (0, 2, 1)))
    assert one.content_hash != other.content_hash
    assert [image.image for image in next(one.samples()).images] == IDS[:3]


@pytest.mark.parametrize("rule", ["drop", "mark"])
def test_a_further_image_that_is_in_a_benchmark_is_a_leak_of_the_sample(rule: str):
    inputs = BenchmarkInputs(
        benchmarks=[benchmark("MMBench", {"8": "What?"}, {"8": IDS[1]})],
        encode=None,
        prints=lambda found: [by_file_alone(found)],
    )
    with plan_of(release_inputs([SAMPLE], HELD, benchmarks=inputs), settings(rule=rule)) as plan:
        rejects = [(each.reason, each.detail) for each in plan.rejects()]
        assert rejects == ([(Reason.BENCHMARK_IMAGE, "MMBench: 8 (the same file)")] if rule == "drop" else [])
        (leak,) = json.loads(files_of(plan)["leaks.json"])["leaks"]
        assert (leak["sample"], leak["what"]) == (SAMPLE.pair, "benchmark image")
