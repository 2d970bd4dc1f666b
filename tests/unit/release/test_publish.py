"""A release: what is in it and why, against brute-force oracles; its files, as those who load them would."""

import dataclasses
import importlib.util
import io
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.hashing import canonical_json, draw, fingerprint, sha256_hex
from taskgalaxy_ops.models.rendering import rendered_for
from taskgalaxy_ops.records import Claim, Image, Pair, Reason, Verdict, Vote, pair_id
from taskgalaxy_ops.release import SPLITS, ReleaseInputs, Selection, ShardRows, Stored, TaxonomySummary, build, select
from taskgalaxy_ops.release.agreement import Ballots, agreement, cohen_kappa, krippendorff_alpha
from taskgalaxy_ops.release.card import card
from taskgalaxy_ops.release.formats import parquet
from taskgalaxy_ops.release.formats.llava import llava_files
from taskgalaxy_ops.release.formats.parquet import parquet_files
from taskgalaxy_ops.release.licences import identifier
from taskgalaxy_ops.release.markdown import text
from taskgalaxy_ops.release.near_duplicates import near_duplicates
from taskgalaxy_ops.release.sqlite_staging import canonical, split_of
from taskgalaxy_ops.settings import Model, ReleaseSettings
from taskgalaxy_ops.storage.base import Content
from taskgalaxy_ops.storage.parquet import to_table
from taskgalaxy_ops.text import normal_question

NASTY = (
    "<script>alert(1)</script> | a\n# b ![x](http://evil.example/x.png) [l](javascript:1) `c` https://evil.example "
    "www.evil.example evil.example me@evil.example &lt; \\| $x$ ~~s~~ *b* _i_ :smile: <image> ../../etc"
)


@cache
def file_of(number: int) -> bytes:
    """A small real image; each number another one."""
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(out, "PNG" if number % 2 else "JPEG")
    return out.getvalue()


@cache
def sent(image: str) -> bytes:
    """The picture that the teacher was sent of an image."""
    return rendered_for(RAWS[image], model("teacher"))


RAWS = {sha256_hex(file_of(number)): file_of(number) for number in range(60)}


def image_of(number: int, phash: str | None = None) -> Image:
    raw = file_of(number)
    kind = "png" if number % 2 else "jpeg"
    return Image(sha256_hex(raw), 48, 40, kind, len(raw), phash or f"{random.Random(number).getrandbits(160):040x}")


def pair_of(image: Image, task_type: str = "ocr~words", question: str = "What?", reasoning: str | None = None) -> Pair:
    variant = "chain_of_thought" if reasoning else "plain"
    answer = f"answer to {question}"
    return Pair(
        pair_id(image.image, task_type, variant, question, answer, reasoning),
        image.image,
        task_type,
        variant,
        question,
        answer,
        reasoning,
    )


def model(name: str, **more) -> Model:
    return Model(name=name, base_url="http://127.0.0.1:1/v1", model=f"{name}-model", **more)


JUDGES = tuple(model(name) for name in ("one", "two", "three"))


@dataclasses.dataclass(frozen=True)
class Held:
    """What a release is made of, in memory.

    An image and all that is known of it is in one of ``homes`` image shards.
    """

    samples: list[Pair]
    votes: dict[str, list[Vote]]
    verdicts: dict[str, Verdict]
    images: dict[str, Image]
    claims: dict[str, list[Claim]]
    more: dict[str, Any]
    shards: int = 1

    def release_inputs(self) -> ReleaseInputs:
        images = {pair.pair: pair.image for pair in self.samples}
        rows = []
        for shard in range(self.shards):

            def lives_here(image: str, shard: int = shard) -> bool:
                return int(fingerprint("home", image), 16) % self.shards == shard

            def is_here(pair: str, shard: int = shard) -> bool:
                return lives_here(images.get(pair, ""), shard)

            votes = [vote for pair, cast in self.votes.items() if is_here(pair) for vote in cast]
            verdicts = [verdict for pair, verdict in self.verdicts.items() if is_here(pair)]
            rows.append(
                ShardRows(
                    samples=to_table([pair for pair in self.samples if lives_here(pair.image)], Pair),
                    votes=to_table(votes, Vote),
                    verdicts=to_table(verdicts, Verdict),
                    images=to_table([found for image, found in self.images.items() if lives_here(image)], Image),
                    claims=[claim for image, found in self.claims.items() if lives_here(image) for claim in found],
                )
            )
        return ReleaseInputs(shards=rows, **self.more)

    def but(self, **changed) -> "Held":
        own = {name: value for name, value in changed.items() if name in {f.name for f in dataclasses.fields(self)}}
        more = {**self.more, **{name: value for name, value in changed.items() if name not in own}}
        return dataclasses.replace(self, **own, more=more)


def plan_of(held: Held, settings: ReleaseSettings) -> Selection:
    return release.select_samples(held.release_inputs(), settings)


def release_inputs(samples: list[Pair], images: list[Image], **more) -> Held:
    votes = {p.pair: [Vote(p.pair, "one", 1, "sees it", False), Vote(p.pair, "two", 1, "", False)] for p in samples}
    fields = {
        "read_image": RAWS.__getitem__,
        "image_uri": lambda image: f"s3://bucket/blobs/{image[:2]}/{image}",
        "stage_counts": [StageCounts("vote", len(samples) + 1, len(samples), {"below quorum": 1})],
        "taxonomy": TaxonomySummary(3, ["ocr~words", "counting~fruit"], {1: 2, 2: 2}),
        "teacher": model("teacher"),
        "judges": JUDGES,
        "encoder": {"name": "conse"},
        "prompts": {"filter": "f" * 64},
        "simulated": False,
    }
    held = Held(
        samples,
        votes,
        {p.pair: Verdict(p.pair, True, 2, 2) for p in samples},
        {image.image: image for image in images},
        {i.image: [Claim("photos", i.image, "a.png", None, "CC BY 4.0", "Ann")] for i in images},
        fields,
    )
    return held.but(**more)


def some_material(count: int = 30, each: int = 3, **more) -> Held:
    held = [image_of(number) for number in range(count)]
    kinds = ("ocr~words", "counting~fruit", "art~style ~1")
    samples = [
        pair_of(image, kinds[number % 3], f"Question {number}?", "First, then." if number % 2 else None)
        for image in held
        for number in range(each)
    ]
    return release_inputs(samples, held, **more)


def files_of(plan: Selection, **history) -> dict[str, bytes]:
    return {path: whole(content) for path, content in build(plan, version=1, history=history)}


def whole(content: Content | Stored) -> bytes:
    """The bytes of a file of a release."""
    if isinstance(content, Stored):
        return RAWS[content.image]
    if isinstance(content, bytes):
        return content
    content.seek(0)
    return content.read()


# --- near duplicates ---------------------------------------------------------------------------------------------


def near_duplicates_by_definition(hashes: dict[str, str], bits: int) -> dict[str, str]:
    standing: list[str] = []
    out = {}
    for image in sorted(hashes):
        near = [s for s in standing if (int(hashes[s], 16) ^ int(hashes[image], 16)).bit_count() <= bits]
        if near:
            out[image] = near[0]
        else:
            standing.append(image)
    return out


def near(hashes: dict[str, str], bits: int) -> dict[str, str]:
    """What ``near_duplicates`` finds, by name."""
    ids = sorted(hashes)
    packed = np.array([list(bytes.fromhex(hashes[name])) for name in ids], np.uint8).reshape(len(ids), -1 if ids else 0)
    found = near_duplicates(packed, bits)
    return {ids[row]: ids[found[row]] for row in range(len(ids)) if found[row] >= 0}


@st.composite
def crowded_hashes(draw_):
    """Hashes around a few centres, so that many are just within or just beyond a few bits, in chains too."""
    width = draw_(st.sampled_from([16, 64, 160]))
    centres = draw_(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, width - 1), max_size=7)
    found = []
    for _ in range(draw_(st.integers(0, 40))):
        value = draw_(st.sampled_from(centres))
        for bit in draw_(flips):
            value ^= 1 << bit
        found.append(value)
    names = draw_(st.permutations(range(len(found))))
    return {f"{name:04d}": f"{value:0{width // 4}x}" for name, value in zip(names, found, strict=True)}


@settings(deadline=None, max_examples=200)
@given(crowded_hashes(), st.integers(0, 12))
def test_near_duplicates_are_those_of_the_definition(hashes, bits):
    assert near(hashes, bits) == near_duplicates_by_definition(hashes, bits)


def test_thousands_of_images_that_share_most_bits_are_compared_exactly():
    rng = random.Random(1)
    centre = rng.getrandbits(160)
    hashes = {}
    for number in range(2000):
        value = centre
        for bit in rng.sample(range(160), rng.randrange(5)):
            value ^= 1 << bit
        hashes[f"{number:05d}"] = f"{value:040x}"
    for bits in (0, 4):
        assert near(hashes, bits) == near_duplicates_by_definition(hashes, bits)


def test_a_chain_of_small_steps_drops_only_what_is_near_to_what_stands():
    hashes = {"a": "00", "b": "01", "c": "03", "d": "07"}
    assert near(hashes, 1) == {"b": "a", "d": "c"}


# --- the plan ----------------------------------------------------------------------------------------------------


def test_samples_of_a_near_duplicate_image_are_rejects_that_name_its_stand_in():
    first, second = sorted((image_of(1, "0" * 40), image_of(2, "0" * 39 + "1")), key=lambda i: i.image)
    held = release_inputs([pair_of(first), pair_of(second)], [first, second])
    assert len([*plan_of(held, ReleaseSettings()).samples()]) == 2
    made = plan_of(held, ReleaseSettings(near_duplicate_bits=1))
    assert [pair.image for pair in made.samples()] == [first.image]
    [reject] = [*made.rejects()]
    assert (reject.stage, reject.reason, reject.image) == ("release", Reason.NEAR_DUPLICATE_IMAGE, second.image)
    assert reject.detail == f"of {first.image}" and reject.pair == pair_of(second).pair


def test_an_image_without_samples_stands_for_none():
    images = [image_of(number, "0" * 40) for number in range(4)]
    largest = max(images, key=lambda image: image.image)
    assert len(list(plan_of(release_inputs([pair_of(largest)], images), ReleaseSettings()).samples())) == 1


def test_the_same_question_about_an_image_is_asked_once():
    image, other = image_of(1), image_of(2)
    same = [pair_of(image, question=q) for q in ("How many  cats?", "how many cats", "HOW MANY CATS ?")]
    others = [pair_of(image, question="How many cats sit?"), pair_of(other, question="How many cats?")]
    made = plan_of(release_inputs([*same, *others], [image, other]), ReleaseSettings())
    keep = min(pair.pair for pair in same)
    assert {pair.pair for pair in made.samples()} == {keep, *(pair.pair for pair in others)}
    assert {(r.reason, r.detail) for r in made.rejects()} == {(Reason.DUPLICATE_PAIR, f"of {keep}")}


def test_of_several_answers_to_a_question_the_one_that_was_given_first_is_released():
    image = image_of(1)
    told = {3: 3, 1: None, 2: 2}
    pairs = [dataclasses.replace(pair_of(image), pair=f"{n}" * 64, number=told[n]) for n in told]
    assert next(plan_of(release_inputs(pairs, [image]), ReleaseSettings()).samples()).pair == pairs[1].pair
    made = plan_of(release_inputs([pairs[0], pairs[2]], [image]), ReleaseSettings())  # the first one was not accepted
    assert [sample.pair for sample in made.samples()] == [pairs[2].pair]
    assert [(r.reason, r.pair) for r in made.rejects()] == [(Reason.DUPLICATE_PAIR, pairs[0].pair)]
    assert normal_question("What is 3+4?") != normal_question("What is 3-4?")


def capped_by_definition(pairs: list[Pair], cap: int) -> set[str]:
    """Each task type takes, one at a time, the lowest draw among the images that it has taken least of."""
    kept = set()
    for task_type in {pair.task_type for pair in pairs}:
        left = [pair for pair in pairs if pair.task_type == task_type]
        taken: Counter[str] = Counter()
        while left and sum(taken.values()) < cap:
            best = min(left, key=lambda p: (taken[p.image], draw("cap", p.pair), p.pair))
            left.remove(best)
            taken[best.image] += 1
            kept.add(best.pair)
    return kept


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 9)), max_size=60, unique=True),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_the_cap_is_that_of_the_definition_and_every_drop_is_counted(rows, cap, shuffle):
    images = [image_of(number) for number in range(8)]
    pairs = [pair_of(images[i], f"type {t}", f"Question {t} {n}") for i, t, n in rows]
    shuffled = shuffle.sample(pairs, len(pairs))
    made = plan_of(release_inputs(shuffled, images), ReleaseSettings(cap=cap))
    assert {pair.pair for pair in made.samples()} == capped_by_definition(pairs, cap)
    assert all(r.reason == Reason.OVER_CAP and r.stage == "release" for r in made.rejects())
    assert {r.pair for r in made.rejects()} == {p.pair for p in pairs} - {p.pair for p in made.samples()}
    own = made.funnel[-1]
    assert (own.stage, own.units_in, own.units_out) == ("release", len(pairs), len([*made.samples()]))


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 0.49), st.floats(0, 0.49), st.integers(0, 40), st.integers(1, 3))
def test_splits_are_by_image_whole_and_in_order_of_id(validation, test, count, each):
    chosen = ReleaseSettings(validation=validation, test=test)
    held = some_material(count, each)
    made = plan_of(held, chosen)
    by_image: dict[str, set[str]] = {}
    for split in SPLITS:
        assert [p.pair for p in made.split(split)] == sorted(p.pair for p in made.split(split))
        for pair in made.split(split):
            by_image.setdefault(pair.image, set()).add(split)
            x = draw("split", pair.image)
            assert split == ("test" if x < test else "validation" if x < test + validation else "train")
    assert all(len(splits) == 1 for splits in by_image.values())
    assert sorted(p.pair for p in made.samples()) == sorted(p.pair for p in held.samples)


def test_shares_of_splits_are_near_their_settings_and_images_stay_where_they_are():
    ids = [sha256_hex(str(number).encode()) for number in range(4000)]
    chosen = ReleaseSettings(validation=0.2, test=0.1)
    shares = Counter(split_of(image, chosen) for image in ids)
    assert abs(shares["validation"] / 4000 - 0.2) < 0.03 and abs(shares["test"] / 4000 - 0.1) < 0.03
    tests = {image for image in ids if split_of(image, chosen) == "test"}
    assert tests == {i for i in ids if split_of(i, ReleaseSettings(validation=0.5, test=0.1)) == "test"}


def copied(held: Held, limit: int, images: str = "original") -> set[str]:
    return {image for _, image, _ in plan_of(held, ReleaseSettings(copy_images_up_to=limit, images=images)).copied()}


def test_images_are_copied_in_order_of_id_up_to_the_limit():
    held = some_material(10)
    sizes = [(image, held.images[image].size) for image in sorted(held.images)]
    limit = sum(size for _, size in sizes[:4]) + 1
    assert copied(held, limit) == {image for image, _ in sizes[:4]}
    assert copied(held, 0) == set()
    expected = int(0.75 * 48 * 40)  # bytes of a rendition, before it is made
    assert copied(held, 3 * expected, images="rendition") == {image for image, _ in sizes[:3]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "is not registered"),
        ({"claims": {}}, "no live source claims"),
    ],
)
def test_samples_that_hang_in_the_air_are_damage(change, message):
    with pytest.raises(DamageError, match=message):
        plan_of(some_material(2).but(**change), ReleaseSettings())


def test_an_id_that_is_no_fingerprint_never_becomes_a_path():
    held = some_material(1)
    bad = dataclasses.replace(held.samples[0], image="../../etc/passwd")
    with pytest.raises(DamageError, match="64 hex digits"):
        plan_of(held.but(samples=[bad]), ReleaseSettings())


def test_what_a_simulated_model_made_cannot_go_unmarked():
    with pytest.raises(ValueError, match="teacher: simulated"):
        some_material(1, teacher=model("teacher", simulated=True)).release_inputs()


# --- content hash and bytes --------------------------------------------------------------------------------------


def shuffled_material(held: Held, seed: int) -> Held:
    shuffle = random.Random(seed)

    def mixed(value):
        if isinstance(value, dict):
            return {key: mixed(value[key]) for key in shuffle.sample(sorted(value), len(value))}
        return shuffle.sample(list(value), len(value)) if isinstance(value, list) else value

    names = ("samples", "votes", "verdicts", "images", "claims")
    rows = {name: mixed(getattr(held, name)) for name in names}
    return held.but(**rows, **{name: mixed(held.more[name]) for name in ("rules", "prompts")}, shards=seed + 1)


def rich_material(**more) -> Held:
    held = some_material(12)
    claims = {
        image: [*found, Claim("archive", image, "z.png", "http://a.example/z")] for image, found in held.claims.items()
    }
    return held.but(claims=claims, rules={"vote.quorum": 2, "match.k": 5}, **more)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_material_gives_the_same_bytes_in_any_order(seed):
    held = rich_material()
    a, b = (
        plan_of(held, ReleaseSettings(cap=9)),
        plan_of(shuffled_material(held, seed), ReleaseSettings(cap=9)),
    )
    assert a.content_hash == b.content_hash
    one, other = files_of(a, made="now"), files_of(b, made="later")
    assert one.pop("history.json") != other.pop("history.json")
    assert one == other


def test_other_files_need_another_code_version():
    """Golden: where this fails, add one to RELEASE_VERSION, and write the new hashes down."""
    images = [Image(sha256_hex(bytes([n])), 64, 48, "png", 100 + n, f"{n:040x}") for n in range(9)]
    samples = [pair_of(i, f"ocr~{n % 3}", f"Question {n}?", "So." if n % 2 else None) for n, i in enumerate(images)]
    plan = plan_of(release_inputs(samples, images, simulated=True), ReleaseSettings(cap=2, copy_images_up_to=0))
    rows = {p: pq.read_table(raw).to_pylist() for p, raw in parquet_files(plan)}
    golden = {
        "content": plan.content_hash[:16],
        "llava": fingerprint("golden", {path: whole(file).decode() for path, file in llava_files(plan)})[:16],
        "parquet": fingerprint("golden", rows)[:16],
        "card": sha256_hex(card(plan))[:16],
    }
    assert (release.RELEASE_VERSION, golden) == (
        3,
        {
            "content": "bf84dba3656171df",
            "llava": "4e59c055dd9f45b9",
            "parquet": "5498c40fbaacd4b7",
            "card": "c263aad22f16d09b",
        },
    )


TEXTS = (
    "a",
    "\u00e9",
    "e\u0301",
    "\u0301 first",
    "n\n\u0301",
    "\u1112\u1161\u11ab",
    '"q" \\',
    "\t\x1f",
    "\u2028",
    "\u212b",
    "🪐",
)


def varied_material() -> Held:
    """Two sources, texts in any normal form, abstentions, rejected pairs, images and questions that are alike."""
    drawn = random.Random(7)

    def words() -> str:
        return " ".join(drawn.choice(TEXTS) for _ in range(3))

    raws = [b"P6 2 2 255\n" + bytes([n] * 12) for n in range(60)]  # the same bytes whatever Pillow's version
    held = [Image(sha256_hex(raw), 2, 2, "ppm", len(raw), f"{n // 2 << n:040x}") for n, raw in enumerate(raws)]
    RAWS.update((sha256_hex(raw), raw) for raw in raws)
    kinds = ("ocr~words", "counting~fruit", "art~\u00e9 style")
    samples = []
    for image in held:
        for number in range(drawn.randrange(5)):
            question = drawn.choice([words(), "What is it?", "what is it ?"])
            reasoning = words() if number % 3 == 2 else None
            samples.append(dataclasses.replace(pair_of(image, kinds[number % 3], question, reasoning), answer=words()))
    ids = [pair.pair for pair in samples] + [sha256_hex(bytes([n, 1])) for n in range(20)]
    names = ("one", "two", "three", "\u00e9")
    return release_inputs(
        samples,
        held,
        votes={
            p: [Vote(p, n, drawn.choice([0, 1, None]), words(), n == "two") for n in names[: 1 + i % 4]]
            for i, p in enumerate(ids)
        },
        verdicts={p: Verdict(p, i < len(samples), i % 3, 2) for i, p in enumerate(ids)},
        claims={
            i.image: [Claim(n, i.image, words(), None, words(), "Ann") for n in names[: 1 + int(i.image, 16) % 2]]
            for i in held
        },
        audit_share=0.4,
        pending=3,
        partial=True,
    )


@pytest.mark.parametrize(
    ("chosen", "golden"),
    [
        ({}, "0cdc3a9af5ce008b"),
        ({"near_duplicate_bits": 0, "cap": 9}, "85e6384516896225"),
        ({"near_duplicate_bits": 4, "variants": ("plain",)}, "3f4499db5fadea69"),
        ({"near_duplicate_bits": -1, "validation": 0.4, "test": 0.3}, "a0320aaa98722d64"),
    ],
)
def test_every_file_is_as_it_was(chosen, golden):
    """Golden: as the test above, over more of what there is."""
    rules = ReleaseSettings(copy_images_up_to=500, images="original", **chosen)  # no encoder's version counts
    files = files_of(plan_of(varied_material(), rules))
    assert fingerprint("golden", shown_files(files))[:16] == golden


def shown_files(files: dict[str, bytes]) -> dict[str, Any]:
    """What is of content, as far as it does not hang on the writers of Parquet and HTML."""
    manifest = json.loads(files["manifest.json"])
    shown: dict[str, Any] = {"order": list(files), "content": manifest["content_hash"], "counts": manifest["counts"]}
    for path, raw in files.items():
        if path.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(raw)).to_pylist()
            images = [row["image"].pop("bytes") for row in rows]
            assert all(
                image is None or sha256_hex(image) == row["image_id"] for image, row in zip(images, rows, strict=True)
            )
            groups = pq.ParquetFile(io.BytesIO(raw)).num_row_groups
            shown[path] = [groups, rows, [image is not None for image in images]]
        elif not path.startswith(("manifest", "history", "samples/", "croissant", "card.html")):
            shown[path] = sha256_hex(raw)
    return shown


def test_rows_written_group_by_group_are_the_file_of_all_at_once(monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 7)
    plan = plan_of(rich_material(), ReleaseSettings(validation=0, test=0))
    [(_, file)] = [(path, whole(file)) for path, file in parquet_files(plan)]
    rows, out = pq.read_table(io.BytesIO(file)).to_pylist(), io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=parquet.SCHEMA), out, row_group_size=7, **parquet.WRITING)
    assert pq.ParquetFile(io.BytesIO(file)).num_row_groups == 6 and out.getvalue() == file


json_values = st.recursive(
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(alphabet=st.sampled_from("".join(TEXTS)) | st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_in_order_is_canonical_but_for_the_normal_form(value):
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(written) == canonical_json(value)


def test_history_is_no_content():
    held = rich_material()
    now = plan_of(held, ReleaseSettings())
    later = plan_of(
        held.but(
            taxonomy=dataclasses.replace(held.more["taxonomy"], version=9),
            usage={"calls": 7},
            settings_hash="another",
            teacher=model("teacher", concurrency=2, api_key_env="OTHER").model_copy(update={"base_url": "http://x/v1"}),
        ),
        ReleaseSettings(),
    )
    assert now.content_hash == later.content_hash
    one, other = files_of(now), files_of(later)
    assert json.loads(other["history.json"]) == {
        "taxonomy_version": 9,
        "usage": {"calls": 7},
        "settings_hash": "another",
        "version": 1,
    }
    del one["history.json"], other["history.json"]
    assert one == other


@pytest.mark.parametrize(
    "change",
    [
        lambda held: {"samples": held.samples[1:]},
        lambda held: {"partial": True, "pending": 3},
        lambda held: {"simulated": True},
        lambda held: {"claims": {image: found[:1] for image, found in held.claims.items()}},
        lambda held: {"votes": {}},
        lambda held: {"verdicts": {}},
        lambda held: {"stage_counts": []},
        lambda held: {"taxonomy": TaxonomySummary(3, ["ocr~words"], {1: 1, 2: 1})},
        lambda held: {"teacher": model("teacher", revision="2")},
        lambda held: {"judges": JUDGES[:2]},
        lambda held: {"encoder": {"name": "open_clip"}},
        lambda held: {"prompts": {"filter": "e" * 64}},
        lambda held: {"rules": {"vote.quorum": 3}},
    ],
)
def test_content_is_what_is_in_it(change):
    held = rich_material()
    plan = plan_of(held, ReleaseSettings())
    assert plan_of(held.but(**change(held)), ReleaseSettings()).content_hash != plan.content_hash
    assert plan_of(held, ReleaseSettings(cap=99)).content_hash != plan.content_hash


# --- the files ---------------------------------------------------------------------------------------------------


def test_the_manifest_is_last_and_names_every_file_but_history():
    plan = plan_of(some_material(), ReleaseSettings())
    order = [path for path, _ in build(plan, version=4, history={"made": "now"})]
    files = files_of(plan)
    assert order == list(files) and order[-1] == "manifest.json" and len(files) == release.file_count(plan)
    manifest = json.loads(files["manifest.json"])
    assert set(manifest["files"]) == set(files) - {"manifest.json", "history.json"}
    for path, entry in manifest["files"].items():
        assert entry == {"size": len(files[path]), "sha256": sha256_hex(files[path])}
    assert manifest["content_hash"] == plan.content_hash
    assert manifest["counts"]["samples"] == 90 == sum(manifest["counts"][split] for split in SPLITS)
    assert not manifest["partial"] and not manifest["simulated"]
    assert "base_url" not in str(manifest) and "127.0.0.1" not in str(manifest)


def test_llava_has_one_conversation_a_sample_and_its_image():
    plan = plan_of(some_material(), ReleaseSettings(validation=0.3, test=0.3))
    files = files_of(plan)
    for split in SPLITS:
        rows = json.loads(files[f"llava/{split}.json"])
        assert [row["id"] for row in rows] == [pair.pair for pair in plan.split(split)]
        for row, pair in zip(rows, plan.split(split), strict=True):
            assert files[row["image"]] == sent(pair.image)
            assert row["image"] == f"images/{pair.image[:2]}/{pair.image}.jpg"
            answer = f"First, then.\n\n{pair.answer}" if pair.reasoning else pair.answer
            assert row["conversations"] == [
                {"from": "human", "value": f"<image>\n{pair.question}"},
                {"from": "gpt", "value": answer},
            ]
            assert "simulated" not in row


def test_special_tokens_that_an_older_version_let_pass_get_other_brackets_everywhere_and_are_counted():
    held = [image_of(number) for number in range(3)]
    samples = [
        pair_of(held[0], question="What is <start_of_turn>?"),
        pair_of(held[1], question="How?", reasoning="Since <pad>."),
        pair_of(held[2], question="What is <b>bold</b>?"),
    ]
    plain = [samples[2], *(pair_of(image, question="Why?") for image in held[:2])]
    files = files_of(plan_of(release_inputs(samples, held), ReleaseSettings(validation=0, test=0)))
    told = {
        row["id"]: [turn["value"] for turn in row["conversations"]] for row in json.loads(files["llava/train.json"])
    }
    assert told[samples[0].pair] == ["<image>\nWhat is ‹start_of_turn›?", "answer to What is ‹start_of_turn›?"]
    assert told[samples[1].pair][1] == "Since ‹pad›.\n\nanswer to How?"
    assert told[samples[2].pair][0] == "<image>\nWhat is <b>bold</b>?"
    rows = pd.read_parquet(io.BytesIO(files["data/train-00000-of-00001.parquet"]))
    assert "<start_of_turn>" not in str(rows.drop(columns="image").to_dict())
    assert "2 samples name special tokens" in files["README.md"].decode()
    others = files_of(plan_of(release_inputs(plain, held), ReleaseSettings(validation=0, test=0)))
    assert "special tokens" not in others["README.md"].decode()


def test_parquet_has_a_row_a_sample_with_its_image_votes_and_claims(monkeypatch):
    monkeypatch.setattr(select, "_PART_ROWS", 20)
    plan = plan_of(rich_material(), ReleaseSettings(validation=0.2, test=0))
    files = files_of(plan)
    names = [path for path in files if path.startswith("data/train")]
    assert names == [f"data/train-{n:05d}-of-{len(names):05d}.parquet" for n in range(len(names))] and len(names) > 1
    rows = pd.concat([pd.read_parquet(io.BytesIO(files[name])) for name in names])
    assert list(rows["id"]) == [pair.pair for pair in plan.split("train")]
    for row in rows.to_dict("records"):
        assert row["image"]["bytes"] == sent(row["image_id"])
        assert files[row["image"]["path"]] == row["image"]["bytes"]
        assert list(row["sources"]) == ["archive", "photos"]
        assert list(row["origins"]) == ["http://a.example/z", None]
        assert list(row["licences"]) == [None, "CC BY 4.0"] and list(row["attributions"]) == [None, "Ann"]
        assert [(v["judge"], v["vote"], v["reason"], v["audit"]) for v in row["votes"]] == [
            ("one", 1, "sees it", False),
            ("two", 1, "", False),
        ]
        assert row["simulated"] is False
    features = json.loads(pq.read_schema(io.BytesIO(files[names[0]])).metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"} and list(features) == list(rows.columns)
    assert not [path for path in files if path.startswith("data/test")]


def test_a_parquet_file_holds_a_bounded_number_of_image_bytes(monkeypatch):
    held = some_material(10)
    largest = max(image.size for image in held.images.values())
    monkeypatch.setattr(select, "_PART_BYTES", 2 * largest)
    plan = plan_of(held, ReleaseSettings(images="original"))
    assert sum(map(len, plan.parts.values())) > 3
    rows = []
    for path, raw in files_of(plan).items():
        if path.startswith("data/train"):
            part = pq.read_table(io.BytesIO(raw))
            assert sum(held.images[image].size for image in part["image_id"].to_pylist()) <= 2 * largest
            rows += part["id"].to_pylist()
    assert rows == [sample.pair for sample in plan.split("train")]


def test_images_beyond_the_limit_are_referred_to():
    held = some_material(10)
    files = files_of(plan_of(held, ReleaseSettings(copy_images_up_to=0, test=0, validation=0)))
    assert not [path for path in files if path.startswith("images/")]
    for row in json.loads(files["llava/train.json"]):
        assert row["image"].startswith("s3://bucket/blobs/")
    rows = pd.read_parquet(io.BytesIO(files["data/train-00000-of-00001.parquet"]))
    for row in rows.to_dict("records"):
        assert row["image"] == {"bytes": None, "path": held.more["image_uri"](row["image_id"])}
    assert "10 are referred to" in files["README.md"].decode()


def test_an_image_whose_bytes_are_others_is_damage():
    held = some_material(2, read_image=lambda image: b"other")
    with pytest.raises(DamageError, match="checksum"):
        files_of(plan_of(held, ReleaseSettings()))


def test_images_are_read_as_their_files_are_asked_for():
    read: list[str] = []
    held = some_material(5)
    source = held.more["read_image"]
    held = held.but(read_image=lambda image: (read.append(image), source(image))[1])
    files = build(plan_of(held, ReleaseSettings()), version=1, history={})
    assert [next(files)[0] for _ in range(3)] == [f"llava/{split}.json" for split in SPLITS]
    assert read == []


def test_no_samples_give_an_empty_release():
    files = files_of(plan_of(release_inputs([], []), ReleaseSettings(cap=1)))
    assert json.loads(files["llava/train.json"]) == []
    assert yaml.safe_load(files["README.md"].decode().split("---")[1])["license"] == ["unknown"]


# --- the card ----------------------------------------------------------------------------------------------------


def card_of(held: Held, **chosen) -> tuple[dict, str]:
    readme = files_of(plan_of(held, ReleaseSettings(**chosen)))["README.md"].decode()
    _, header, body = readme.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_card_has_the_header_of_the_hub_and_every_figure():
    header, body = card_of(rich_material(), cap=9)
    assert header["license"] == ["cc-by-4.0", "unknown"]
    assert header["task_categories"] == ["visual-question-answering"] and header["size_categories"] == ["n<1K"]
    assert header["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*.parquet"}
    assert "simulated" not in header["tags"] and "SIMULATED" not in body and "Partial" not in body
    assert "27 questions and answers about 12 images, of 3 task types" in body
    assert "| release | 36 | 27 | over the cap 9 | 0 |" in body
    assert "| vote | 37 | 36 | below quorum 1 | 0 |" in body
    assert "| photos | CC BY 4.0 | Ann | 12 |" in body and "| archive | not stated | not stated | 12 |" in body
    assert "| ocr | 1 | 1 | 9 |" in body
    assert "| one and two | 36 | 100.0 % | not defined |" in body


def test_what_is_simulated_or_partial_says_so_everywhere():
    teacher = model("teacher", simulated=True)
    plan = plan_of(some_material(simulated=True, teacher=teacher, partial=True, pending=7), ReleaseSettings())
    files = files_of(plan)
    readme = files["README.md"].decode()
    header = yaml.safe_load(readme.split("---\n")[1])
    assert {"simulated", "partial"} <= set(header["tags"]) and "simulated" in header["pretty_name"]
    assert "# SIMULATED" in readme and "**Partial:** 7 units" in readme
    assert all(row["simulated"] for row in json.loads(files["llava/train.json"]))
    assert pd.read_parquet(io.BytesIO(files["data/train-00000-of-00001.parquet"]))["simulated"].all()
    manifest = json.loads(files["manifest.json"])
    assert manifest["simulated"] and manifest["partial"] and manifest["pending"] == 7


def test_the_cards_pictures_are_small_upright_jpegs_of_different_images_and_types():
    plan = plan_of(some_material(), ReleaseSettings())
    files = files_of(plan)
    shown = [path for path in files if path.startswith("samples/")]
    assert len(shown) == len(plan.shown) == 3  # as many as there are task types
    assert len({pair.image for pair in plan.shown}) == len({pair.task_type for pair in plan.shown}) == 3
    for path in shown:
        assert f"]({path})" in files["README.md"].decode()
        with Pillow.open(io.BytesIO(files[path])) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 256 and not picture.getexif()


def test_text_of_models_and_sources_shows_as_itself():
    markdown_it = pytest.importorskip("markdown_it")
    image = image_of(1)
    hostile = dataclasses.replace(pair_of(image, "a" + NASTY, NASTY, NASTY), answer=NASTY)
    votes = {hostile.pair: [Vote(hostile.pair, NASTY[:90], 1, NASTY, False)]}
    claims = {image.image: [Claim(NASTY, image.image, NASTY, NASTY, NASTY, NASTY)]}
    held = release_inputs(
        [hostile],
        [image],
        votes=votes,
        claims=claims,
        encoder={NASTY: NASTY},
        prompts={NASTY: NASTY},
        rules={NASTY: NASTY},
    )
    held = held.but(stage_counts=[StageCounts(NASTY, 1, 0, {NASTY: 1})])
    header, body = card_of(held)
    assert header["license"] == ["other"]
    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(body)
    inline = [child for token in tokens for child in token.children or []]
    assert not [t for t in tokens if t.type == "html_block"]
    assert {t.content for t in inline if t.type == "html_inline"} <= {"<br>"}
    assert not [t for t in inline if t.type in {"link_open", "s_open"}]
    pictures = [f"samples/{hostile.pair[:16]}.jpg", "card/funnel.svg", "card/task-types.svg"]
    assert [t.attrs["src"] for t in inline if t.type == "image"] == pictures
    rows: list[int] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append(0)
        elif token.type in {"th_open", "td_open"}:
            rows[-1] += 1
    assert set(rows) == {2, 3, 4, 5}  # a torn table would have cells that are missing or too many
    shown = "".join(t.content for t in inline if t.type in {"text", "text_special"}).replace("\u200b", "")
    assert "<script>alert(1)</script> | a # b ![x](http://evil.example/x.png)" in shown
    assert "../../etc" not in "".join(files_of(plan_of(held, ReleaseSettings())))


@given(st.text())
def test_escaped_text_is_one_line_without_markup_or_addresses(value):
    shown = text(f"{value} http://x.example/ www.x.example me@x.example {value}")
    assert not re.search(r"[<>`*\[\]|\\\n\r]", shown)
    plain = re.sub(r"&#(\d+);", lambda m: chr(int(m.group(1))), shown)
    assert not re.search(r"://|\bwww\.|@\w", plain)


def test_long_text_is_cut_before_it_is_escaped():
    assert text("<" * 9, 4) == "&#60;&#60;&#60;…"


def test_the_card_says_what_was_done_about_images_that_look_alike():
    held = some_material(2)
    assert "look alike were kept" in card_of(held, near_duplicate_bits=-1)[1]
    assert "hashes are equal, one was kept" in card_of(held)[1]
    assert "differ in 4 of 160 bits at most, one was kept" in card_of(held, near_duplicate_bits=4)[1]


def test_licences_are_named_as_the_hub_does():
    named = {"CC BY 4.0": "cc-by-4.0", "CC0": "cc0-1.0", "BSD-3-Clause": "bsd-3-clause", "public domain": "other"}
    assert {licence: identifier(licence) for licence in named} == named
    assert identifier(None) == identifier(" ") == "unknown"


# --- agreement ---------------------------------------------------------------------------------------------------


def test_alpha_is_that_of_krippendorffs_examples():
    """Computing Krippendorff's Alpha-Reliability (2011), examples A and C."""
    meg, owen = "0100000010", "1110010000"
    two = Counter((int(a), int(b)) for a, b in zip(meg, owen, strict=True))
    assert krippendorff_alpha(two) == pytest.approx(0.095, abs=5e-4)
    raters = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = Counter(tuple(int(value) for value in unit if value != ".") for unit in zip(*raters, strict=True))
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_figures_that_chance_alone_would_give_are_not_defined():
    assert krippendorff_alpha({(1, 1): 2}) is krippendorff_alpha({(1,): 1, (): 1}) is krippendorff_alpha({}) is None
    assert cohen_kappa({(1, 1): 1}) is cohen_kappa({}) is None
    assert cohen_kappa({(1, 1): 1, (0, 0): 1}) == 1
    assert cohen_kappa({(1, 1): 20, (1, 0): 5, (0, 1): 10, (0, 0): 15}) == pytest.approx(0.4)


def test_agreement_is_over_audited_pairs_and_shares_over_all():
    ids = [sha256_hex(str(number).encode()) for number in range(200)]
    audited = {pair for pair in ids if draw("audit", pair) < 0.25}
    ballots, unaudited = Ballots(0.25), Ballots(0)
    for pair in ids:
        for each in (ballots, unaudited):
            each.add(pair, [("one", 1), ("two", 1 if pair in audited else 0), ("three", None)])
    figures = agreement(ballots, ["one", "two", "three"])
    assert figures.audited and figures.pairs == len(audited)
    assert figures.two[0].agreed == figures.two[0].pairs == len(audited) and figures.two[1].pairs == 0
    assert figures.judges[1].approval_share == len(audited) / 200
    assert figures.judges[2].abstentions == 200 and figures.judges[2].approval_share is None
    assert not agreement(unaudited, ["one", "two", "three"]).audited


# --- as others load it -------------------------------------------------------------------------------------------

LOAD = """
import json, sys
from datasets import load_dataset
loaded = load_dataset(sys.argv[1], cache_dir=sys.argv[2])
rows = {split: list(loaded[split]) for split in loaded}
print(json.dumps(rows, default=lambda image: image.size))
"""


def loaded(tmp_path: Path, files: Iterable[tuple[str, bytes]]) -> dict[str, list[dict]]:
    """The rows that `datasets` finds in these files, by split; of an image, its size."""
    folder = tmp_path / "a release"
    for path, raw in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "cache")],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[dict]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(
    not importlib.util.find_spec("datasets"), reason="`datasets` is not installed; Parquet is checked above"
)
@pytest.mark.parametrize("limit", [0, 2_000_000_000])
def test_datasets_opens_a_release(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(select, "_PART_ROWS", 25)
    blobs = tmp_path / "all blobs #1"
    blobs.mkdir()
    for number in range(30):
        (blobs / sha256_hex(file_of(number))).write_bytes(file_of(number))
    held = some_material(image_uri=lambda image: (blobs / image).as_uri())
    plan = plan_of(held, ReleaseSettings(copy_images_up_to=limit, validation=0.3, test=0))
    there = loaded(tmp_path, files_of(plan).items())
    assert set(there) == {"train", "validation"}  # no image was drawn for the test split
    for split in ("train", "validation"):
        assert [row["id"] for row in there[split]] == [pair.pair for pair in plan.split(split)]
    row = there["train"][0]
    assert row["image"] == [48, 40] and row["licences"] == ["CC BY 4.0"] and row["origins"] == [None]
    assert row["votes"][0] == {"judge": "one", "vote": 1, "reason": "sees it", "audit": False}


def test_the_manifest_checks_with_sha256_alone(tmp_path):
    plan = plan_of(some_material(3), ReleaseSettings())
    for path, raw in files_of(plan).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
    listed = json.loads(Path(tmp_path, "manifest.json").read_bytes())["files"]
    assert all(sha256_hex((tmp_path / path).read_bytes()) == entry["sha256"] for path, entry in listed.items())
