"""Questions about several images: which images go together, what is asked of them, and what becomes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from taskgalaxy_ops.generation.form_shares import suits
from taskgalaxy_ops.generation.forms.several_images import SEVERAL_IMAGES
from taskgalaxy_ops.generation.groups import MOST, Groups, groups, pages_of
from taskgalaxy_ops.generation.stages.asking import prompt_name
from taskgalaxy_ops.generation.stages.blind import blind_template, blind_unit
from taskgalaxy_ops.generation.stages.filter import templates as filter_templates
from taskgalaxy_ops.generation.stages.vote import vote_template, vote_unit, voted
from taskgalaxy_ops.generation.stages.write import asked_for, templates, units_by_form, work, write_template
from taskgalaxy_ops.inference.canary import CANARY_IMAGE, canary_unit
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Answer, Claim, Pair, Reason, Relevant, images_as_text, pair_id
from taskgalaxy_ops.settings import Model, Settings, parse_settings

IDS = [f"{number:064x}" for number in range(12)]
HASHES = {image: f"{number << 20 | number << 40:040x}" for number, image in enumerate(IDS)}
LONE, *_ = IDS


def of(angles: list[float], pages: dict[int, tuple[str, int]] | None = None, **changes: Any) -> Groups:
    """The groups of images at these angles; some are pages."""
    ids = IDS[: len(angles)]
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    hashes = {image: f"{(7 ** (5 * n)) % (1 << 160):040x}" for n, image in enumerate(ids, 1)} | changes.get(
        "hashes", {}
    )
    return groups(ids, vectors, hashes, {IDS[n]: page for n, page in (pages or {}).items()})


def test_a_group_is_the_nearest_images_and_as_many_as_the_image_draws():
    found = of([0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8, 3.0, 3.01, 3.2, 3.3])
    assert found.keys() == set(IDS)
    assert {1 + len(group) for group in found.values()} == {2, 3, MOST}
    nearest = IDS[1:4]
    assert list(found[IDS[0]]) == nearest[: len(found[IDS[0]])]


def test_of_many_images_those_with_the_greatest_cosine_are_taken_and_of_equal_ones_the_first_by_id():
    ids = [f"{number:064x}" for number in range(300)]
    angles = np.random.default_rng(7).integers(0, 40, len(ids)) / 7  # many are the same
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    hashes = {image: f"{(7 ** (5 * n)) % (1 << 160):040x}" for n, image in enumerate(ids, 1)}
    exact = vectors.astype(np.float64)
    for row, (image, group) in enumerate(groups(ids, vectors, hashes, {}).items()):
        near = sorted((-round(float(exact[row] @ exact[other]), 6), other) for other in range(len(ids)) if other != row)
        assert (image, list(group)) == (ids[row], [ids[other] for _, other in near[: len(group)]])


def test_an_image_that_leaves_changes_the_groups_that_held_it_alone():
    angles = [0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8]
    whole, gone = of(angles), IDS[7]
    left = of(angles[:7])
    for image, group in left.items():
        assert gone not in group
        assert gone in whole[image] or group == whole[image]


def test_what_looks_the_same_is_passed_by_and_an_image_without_others_has_no_group():
    same = dict.fromkeys(IDS[:2], "0" * 40)
    assert of([0.0, 0.0], hashes=same) == {}
    near = {IDS[0]: f"{0:040x}", IDS[1]: f"{0b111111:040x}", IDS[2]: f"{0b1111111:040x}"}
    found = of([0.0, 0.01, 2.0], hashes=near)
    assert found[IDS[0]] == (IDS[2],), "six bits apart is the same, seven are not"
    assert of([0.0]) == {}


def test_pages_of_a_document_go_together_before_what_is_near():
    pages = {number: ("papers/a.pdf", number) for number in range(4)} | {4: ("papers/b.pdf", 1)}
    found = of([0.0, 1.0, 2.0, 3.0, 0.01, 0.02], pages)
    near_first = {1: [1], 2: [1, 2], 3: [1, 2, 3]}
    assert list(found[IDS[0]]) == [IDS[n] for n in near_first[len(found[IDS[0]])]]
    assert set(found[IDS[3]]) <= set(IDS[:3]) and list(found[IDS[3]]) == sorted(found[IDS[3]]), "in order of pages"
    assert IDS[0] in found[IDS[4]] or IDS[5] in found[IDS[4]], "the only page of its document: the nearest images"


def test_what_a_source_says_of_pages():
    def claim(image: str, file: str, said: dict[str, str] | None) -> Claim:
        return Claim("s", image, file, context=json.dumps(said) if said is not None else None)

    claims = [
        claim("a", "x/d.pdf/00002", {"page": "2"}),
        claim("b", "d.png", {"page": "7"}),
        claim("c", "x/c.png", None),
    ]
    assert pages_of([*claims, claim("e", "x/e", {"page": "iv"})]) == {"a": ("s/x/d.pdf", 2)}


# --- asked and answered

MODEL = Model(name="t", base_url="http://x/v1", model="m")
GROUP = {"a": ("b", "c")}
SETTINGS: Settings = parse_settings(
    {
        "store": "memory",
        "teacher": MODEL.model_dump(mode="json"),
        "judges": [{**MODEL.model_dump(mode="json"), "name": name, "model": name} for name in ("x", "y")],
        "write": {"variants": ["plain", "several_images"], "fused": True},
    }
)
PROMPTS = load_prompts({}, SETTINGS.write.variants)
ROW, ALONE = Relevant("a", "counting~cars", "seen"), Relevant("d", "counting~cars", "seen")


def written_by(groups: Groups) -> dict[str, Any]:
    made = templates(PROMPTS, SETTINGS)
    return {name: each if each.groups is None else replace(each, groups=groups) for name, each in made.items()}


def pair_of(*further: str) -> Pair:
    asked = ("counting~cars", "several_images", "Which image shows more cars?", "image 2")
    return Pair(pair_id(("a", *further), *asked, None), "a", *asked, further_images=images_as_text(further))


def test_a_unit_is_all_images_of_its_group_in_order_and_as_they_are_rendered():
    def key(groups: Groups, **changes: Any) -> str:
        template = replace(write_template("Write.", MODEL, "several_images"), groups=groups, **changes)
        return template.unit("a", {"task_type": "counting~cars"}).key

    keys = [key({}), key(GROUP), key({"a": ("c", "b")}), key({"a": ("b",)}), key(GROUP, apart={"c": {"levels": "1:2"}})]
    assert len(set(keys)) == 5
    assert key(GROUP, context={"a": {"caption": "A car"}}) == key(GROUP), "of which image would it be?"
    plain = write_template("Write.", MODEL, "plain")
    assert plain.unit("a", {"task_type": "x"}).key == replace(plain, groups=None).unit("a", {"task_type": "x"}, ()).key


def test_a_request_says_how_many_images_there_are():
    template = written_by(GROUP)["several_images"]
    unit = template.unit("a", {"task_type": "counting~cars"})
    block = json.loads(template.text([unit]).partition("```json\n")[2].removesuffix("\n```"))
    assert block == {
        "request": "write",
        "variant": "several_images",
        "images": 3,
        "task_types": [{"index": 1, "task_type": "counting~cars"}],
    }
    assert (unit.images, prompt_name(template)) == (("a", "b", "c"), "write_several_images")
    canary = canary_unit(template)
    assert canary is not None and canary.images == (CANARY_IMAGE, CANARY_IMAGE), "a model may take one alone"


def test_judges_see_all_images_and_are_told_how_to_take_them():
    judge = vote_template("Vote.", MODEL, show_answer=True)
    unit, one = vote_unit(judge, pair_of("b", "c")), vote_unit(judge, pair_of())
    block = json.loads(judge.text([unit]).partition("```json\n")[2].removesuffix("\n```"))
    assert (block["images"], unit.images) == (3, ("a", "b", "c"))
    assert "image 1 is the first of them" in judge.text([unit]) and "`images`" not in judge.text([one])
    blind = blind_template("Answer.", MODEL, 1)
    assert blind_unit(blind, pair_of("b", "c")).images == ("a", "b", "c"), "a take-down of each erases it"
    assert '"images"' not in blind.text([blind_unit(blind, pair_of("b", "c"))])


def test_a_match_becomes_a_pair_about_its_group_or_a_reject_where_there_is_none():
    found, rows = written_by(GROUP), [ROW, ALONE]
    units, rejects = units_by_form(found, rows, SETTINGS)
    assert [unit.images for unit in units["several_images"]] == [("a", "b", "c")]
    assert [(each.image, each.reason, each.variant) for each in rejects] == [("d", Reason.NO_GROUP, "several_images")]
    (unit,) = units["several_images"]
    told = Answer({"question": "Which image shows more cars?", "answer": "image 2"})
    made = work(found, rows, SETTINGS).output({unit.key: told})
    assert made.rows["pairs"] == [pair_of("b", "c")] and pair_of("b", "c").images == ("a", "b", "c")
    assert made.units_in == 4 == made.units_out + len(made.rows["rejects"]) + made.pending
    assert asked_for(found, pair_of("b", "c"))[1].key == unit.key
    declined = work(found, [ROW], SETTINGS).output({unit.key: Answer({"question": "", "answer": ""})})
    assert [each.further_images for each in declined.rows["rejects"]] == ['["b","c"]'], "a take-down finds it"


def test_a_rejected_pair_names_its_images():
    judges = [
        vote_template("Vote.", MODEL.model_copy(update={"name": name, "model": name}), show_answer=True)
        for name in "xy"
    ]
    no = Answer({"vote": 0, "reason": "image 3 shows more"})
    answers = {vote_unit(judge, pair_of("b", "c")).key: no for judge in judges}
    (reject,) = voted([pair_of("b", "c")], judges, SETTINGS.vote, answers).rejects
    assert (reject.reason, reject.further_images) == (Reason.BELOW_QUORUM, '["b","c"]')


def test_it_is_always_asked_apart_from_the_filter():
    (found,) = filter_templates(PROMPTS, SETTINGS).values()
    assert found.follow_ups.keys() == {"plain"}


@pytest.mark.parametrize(("path", "held"), [("image description~detail", False), ("comparison~size", True)])
def test_it_suits_what_can_be_asked_of_several(path: str, held: bool):
    assert suits(SEVERAL_IMAGES.suits, path) is held
