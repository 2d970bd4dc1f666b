"""A release beside benchmarks: what is left out, what is marked, and what is said of it."""

import json
from collections import Counter

import pytest

from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release.decontaminate.benchmark import Benchmark, BenchmarkInputs, BenchmarkPicture
from taskgalaxy_ops.release.decontaminate.pictures import by_file_alone, picture_hash
from taskgalaxy_ops.release.decontaminate.questions import BenchmarkQuestion, question_print
from taskgalaxy_ops.settings import ReleaseSettings
from unit.release.test_publish import files_of, image_of, pair_of, plan_of, release_inputs

ASKED = "How many of the eleven lighthouses in this picture stand on an island?"
OTHER = "Which of these ships carries the heaviest cargo of all, by the table?"


def benchmark(name: str, questions: dict[str, str], pictures: dict[str, str] | None = None, **more) -> Benchmark:
    """questions: by item. pictures: the SHA-256 of their files, by item."""
    return Benchmark(
        name=name,
        items=len(questions),
        questions=[BenchmarkQuestion(item, *question_print(text)) for item, text in questions.items()],
        question_vectors={},
        pictures=[
            BenchmarkPicture(item=item, picture=picture_hash(file), quality=0, prints=())
            for item, file in (pictures or {}).items()
        ],
        picture_vectors={},
        **more,
    )


def settings(**how) -> ReleaseSettings:
    return ReleaseSettings(validation=0, test=0, near_duplicate_bits=-1, decontaminate=how)


@pytest.fixture
def held():
    images = [image_of(number) for number in range(3)]
    samples = [pair_of(image, question=question) for image in images for question in (f"{ASKED} Say why.", "Which?")]
    compared = [
        benchmark("MMBench", {"7": ASKED, "8": "What?"}, {"8": images[0].image}, unread={"pictures that fail": 2}),
        benchmark("own", {"q1": OTHER}, {"q1": images[0].image}),
    ]
    inputs = BenchmarkInputs(benchmarks=compared, encode=None, prints=lambda found: [by_file_alone(found)])
    return release_inputs(samples, images, benchmarks=inputs)


def test_leaks_are_rejects_that_name_benchmark_and_item(held) -> None:
    with plan_of(held, settings()) as plan:
        rejects = {(each.image, each.reason): each.detail for each in plan.rejects()}
        first, *others = sorted({pair.image for pair in held.samples}, key=lambda image: image != image_of(0).image)
        assert rejects == {
            (first, Reason.BENCHMARK_IMAGE): "MMBench: 8 (the same file)",
            **{(image, Reason.BENCHMARK_QUESTION): "MMBench: 7 (runs of eight words)" for image in others},
        }
        assert plan.funnel[-1].rejects == {"benchmark image": 2, "benchmark question": 2}
        assert plan.counts["samples"] == 2


def test_marked_leaks_stay_and_both_ways_say_the_same_of_them(held) -> None:
    reports = {}
    for rule in ("drop", "mark"):
        with plan_of(held, settings(rule=rule)) as plan:
            files = files_of(plan)
            reports[rule] = json.loads(files["leaks.json"])
            card = files["README.md"].decode()
            assert json.loads(files["manifest.json"])["files"]["leaks.json"]["size"] == len(files["leaks.json"])
            assert "| MMBench | 2 | 1 (the same file 1) | 3 (runs of eight words 3) | 1 |" in card
            assert "| MMBench | pictures that fail | 2 |" in card
            assert "| MMBench | questions of fewer than eight words" in card
            assert "Nothing was checked against the test sets" not in card
            assert plan.counts["samples"] == (2 if rule == "drop" else 6)
    assert reports["drop"].pop("rule") == "drop"
    assert reports["mark"].pop("rule") == "mark"
    assert reports["drop"] == reports["mark"]
    assert Counter(each["what"] for each in reports["mark"]["leaks"]) == {"benchmark image": 4, "benchmark question": 3}
    named = json.dumps(reports["mark"])
    assert not any(image in named for image in held.images), "a take-down would have to rewrite it"


def test_the_order_of_benchmarks_and_shards_changes_no_byte(held) -> None:
    inputs = held.more["benchmarks"]
    contents = set()
    for shards in (1, 3):
        with plan_of(held.but(shards=shards), settings()) as plan:
            contents.add(plan.content_hash)
    with plan_of(held, settings(rule="mark")) as marked:
        assert marked.content_hash not in contents
    other = BenchmarkInputs(benchmarks=inputs.benchmarks[1:], encode=None, prints=inputs.prints)
    with plan_of(held.but(benchmarks=other), settings()) as plan:
        assert plan.content_hash not in contents
        assert plan.funnel[-1].rejects == {"benchmark image": 2}
    assert len(contents) == 1


def test_an_image_that_leaks_is_in_no_near_duplicates_way(held) -> None:
    twins = [image_of(number, "0" * 40) for number in (0, 1)]
    samples = [pair_of(image, question=f"Question {number}?") for number, image in enumerate(twins)]
    beside = release_inputs(samples, twins, benchmarks=held.more["benchmarks"])
    chosen = settings().model_copy(update={"near_duplicate_bits": 0})
    with plan_of(beside, chosen) as plan:
        assert plan.funnel[-1].rejects == {"benchmark image": 1}


def test_without_benchmarks_a_release_is_as_before(held) -> None:
    plain = held.but(benchmarks=None)
    with plan_of(plain, settings()) as plan, plan_of(plain, ReleaseSettings(validation=0, test=0)) as other:
        assert plan.counts["samples"] == other.counts["samples"] == 6
        assert "leaks.json" not in files_of(other)
