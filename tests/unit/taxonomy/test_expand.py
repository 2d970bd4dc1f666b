"""How a taxonomy grows: what is asked, what is admitted, and a simulated teacher whose every fault is known."""

import json
import zlib
from collections import Counter

import numpy as np
import pytest
from fakes import MemoryStore
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_settings, tiny_workspace

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import LabelReject, Node, Reason
from taskgalaxy_ops.simulator import expansion as simulated_expansion
from taskgalaxy_ops.simulator.expansion import COUNT, compositions, label_kinds, propose, vocabulary
from taskgalaxy_ops.taxonomy import (
    Expansion,
    admit,
    check,
    children,
    expansions,
    live_leaves,
    load_seeds,
    neighbours,
    normalise,
)
from taskgalaxy_ops.taxonomy import labels as label_tools
from taskgalaxy_ops.taxonomy.growth import without_refused
from taskgalaxy_ops.taxonomy.store import TaxonomyStore

SEEDS = load_seeds()


def nodes_of(*paths, origin="seed", retired=()):
    """Nodes of these paths and of all above them."""
    known = {}
    for path in paths:
        for each in (*label_tools.ancestors(path), path):
            status = "retired" if each in retired else "live"
            known[each] = Node(each, label_tools.level(each), origin, status)
    return [known[path] for path in sorted(known)]


NODES = nodes_of("ocr~scene text~sign reading", "ocr~scene text~shop name reading", "ocr~print", "counting~apples")
ROOT = Expansion("level1", "", (), 1)


def below(path):
    return Expansion("level2" if "~" not in path else "level3", path, (), 1)


class Space:
    """Embeds a path by its last label: labels are orthogonal, but for the pairs that are said to be near."""

    def __init__(self, near=None, width=400):
        self.near = near or {}
        self.width = width
        self.places = {}
        self.calls = []

    def axis(self, label):
        vector = np.zeros(self.width)
        vector[self.places.setdefault(label, len(self.places))] = 1
        return vector

    def vector(self, label):
        if label not in self.near:
            return self.axis(label)
        other, cosine = self.near[label]
        return cosine * self.vector(other) + np.sqrt(1 - cosine**2) * self.axis(label)

    def __call__(self, paths):
        self.calls.append(list(paths))
        return np.array([3 * self.vector(label_tools.name(path)) for path in paths])  # lengths count for nothing


class CrowdedSpace(Space):
    """Room for thousands of labels: two that are not said to be near are far apart, if not at a right angle."""

    def axis(self, label):
        vector = np.random.default_rng(zlib.crc32(label.encode())).normal(size=64)
        return vector / np.linalg.norm(vector)


def grow(*proposals, nodes=NODES, near=None, threshold=0.9, max_new=None):
    """Paths of the new nodes, and the rejects, of proposals (parent, label)."""
    asked = [(below(path) if path else ROOT, label) for path, label in proposals]
    added, rejects = admit(asked, nodes, Space(near), threshold, max_new)
    assert len(added) + len(rejects) == len(proposals), "each proposal comes out once"
    return [node.path for node in added], rejects


# What is asked


def test_a_round_asks_for_the_first_level_and_below_every_group():
    asked = expansions([*NODES, *nodes_of("new", origin="expand")], 3)
    assert asked == [
        Expansion("level1", "", ("counting", "new", "ocr"), 3),
        Expansion("level2", "counting", ("apples",), 3),
        Expansion("level2", "new", (), 3),
        Expansion("level2", "ocr", ("print", "scene text"), 3),
        Expansion("level3", "ocr~scene text", ("shop name reading", "sign reading"), 3),
    ]
    assert expansions(NODES[::-1], 1) == expansions(NODES, 1)


def test_a_leaf_that_a_person_wrote_stays_a_leaf():
    assert [e.path for e in expansions(nodes_of("a~b", "c", origin="hand"), 1)] == ["", "a"]
    assert [e.path for e in expansions(nodes_of("a~b", "c", origin="expand"), 1)] == ["", "a", "a~b", "c"]


def test_what_is_retired_is_not_grown_but_told_so_that_it_does_not_come_again():
    nodes = nodes_of("a~b~c", "d~e", "d~f", retired={"a", "a~b", "a~b~c", "d~e"})
    assert expansions(nodes, 1) == [
        Expansion("level1", "", ("a", "d"), 1),
        Expansion("level2", "d", ("e", "f"), 1),
    ]


def test_what_a_person_refused_is_named_to_the_teacher_and_rejected_with_all_below_it():
    refused = {"ocr~scene text~neon signs": 3, "ocr~maps": 4}
    (scene,) = (one for one in expansions(NODES, 1, refused) if one.path == "ocr~scene text")
    assert scene.existing == ("neon signs", "shop name reading", "sign reading")
    assert nodes_of(*(node.path for node in NODES)) == NODES, "a leaf stays a leaf"
    proposals = [(scene, "Neon  signs"), (scene, "maps"), (below("ocr~maps"), "road names"), (below("ocr"), "maps")]
    kept, rejects = without_refused(proposals, refused)
    assert kept == [(scene, "maps")]
    assert [(reject.path, reject.reason, reject.detail) for reject in rejects] == [
        ("ocr~scene text~Neon  signs", Reason.REFUSED_LABEL, "in proposal 3"),
        ("ocr~maps~road names", Reason.REFUSED_LABEL, "in proposal 4"),
        ("ocr~maps", Reason.REFUSED_LABEL, "in proposal 4"),
    ]


def test_what_is_refused_is_remembered_once_and_by_its_first_proposal(tmp_path):
    store = TaxonomyStore(tiny_workspace(tiny_settings(tmp_path), MemoryStore()))
    assert store.refused() == {}
    store.refuse(1, ["ocr~maps", "counting"])
    store.refuse(2, ["counting", "ocr~menus"])
    store.refuse(3, ["counting"])
    assert store.refused() == {"ocr~maps": 1, "counting": 1, "ocr~menus": 2}


def test_an_empty_taxonomy_asks_for_its_first_level():
    assert expansions([], 1) == [ROOT]


def test_children_are_a_list_of_texts():
    assert children(ROOT, {"children": ["A ", ""]}) == ["A ", ""]
    assert children(ROOT, {}) == []
    with pytest.raises(ValueError, match="the first level proposed: 'children' is to be a list, not str"):
        children(ROOT, {"children": "a"})
    with pytest.raises(ValueError, match="proposed for 'ocr': item 2 is to be a text, not int"):
        children(below("ocr"), {"children": ["a", 1]})


# What is admitted


def test_a_new_label_becomes_a_node_in_its_one_spelling():
    added, rejects = admit([(below("ocr"), "  Hand\u2011Writing ")], NODES, Space(), 0.9, None)
    assert (added, rejects) == ([Node("ocr~hand-writing", 2, "expand", "live")], [])
    added, _ = admit([(ROOT, "Art")], NODES, Space(), 0.9, None)
    assert added == [Node("art", 1, "expand", "live")]


def test_an_exact_duplicate_names_what_it_repeats_wherever_it_lies():
    added, rejects = grow(
        ("ocr~scene text", "Sign Reading"), ("counting", "sign  reading"), ("", "scene text"), ("ocr", "print")
    )
    assert added == []
    assert rejects == [
        LabelReject("counting~sign reading", Reason.DUPLICATE_LABEL, "ocr~scene text~sign reading"),
        LabelReject("ocr~print", Reason.DUPLICATE_LABEL, "ocr~print"),
        LabelReject("ocr~scene text~sign reading", Reason.DUPLICATE_LABEL, "ocr~scene text~sign reading"),
        LabelReject("scene text", Reason.DUPLICATE_LABEL, "ocr~scene text"),
    ]


def test_the_first_by_path_wins_among_proposals():
    added, rejects = grow(("ocr", "Bars"), ("counting", "bars"), ("ocr", "bars"), ("", "bars"))
    assert added == ["bars"]
    assert [(r.path, r.detail) for r in rejects] == [
        ("counting~bars", "bars"),
        ("ocr~bars", "bars"),
        ("ocr~bars", "bars"),
    ]


def test_what_was_retired_is_not_proposed_into_life_again():
    nodes = nodes_of("a~b", "a~c", retired={"a~b"})
    assert grow(("a", "b"), nodes=nodes)[1] == [LabelReject("a~b", Reason.DUPLICATE_LABEL, "a~b")]


@pytest.mark.parametrize("cosine", [0.9, 0.95, 1.0])
def test_a_near_duplicate_names_its_neighbour_and_how_near_it_is(cosine):
    near = {"reading signs": ("sign reading", cosine)}
    for parent in ("counting", "ocr~scene text", ""):
        added, (reject,) = grow((parent, "Reading Signs"), near=near)
        assert added == []
        assert (reject.reason, reject.detail) == (Reason.NEAR_DUPLICATE_LABEL, "ocr~scene text~sign reading")
        assert reject.similarity == pytest.approx(cosine, abs=1e-6)


def test_just_below_the_threshold_is_new():
    assert grow(("counting", "reading signs"), near={"reading signs": ("sign reading", 0.899998)})[0]
    assert not grow(("counting", "reading signs"), near={"reading signs": ("sign reading", 0.9)})[0]


def test_a_proposal_is_compared_with_leaves_siblings_and_what_came_before_it():
    far = {"texts in scenes": ("scene text", 1.0)}
    assert grow(("ocr", "texts in scenes"), near=far)[0] == [], "a sibling, though it is a group"
    assert grow(("counting", "texts in scenes"), near=far)[0], "a group elsewhere is no task type"
    twins = {"bees": ("wasps", 0.95)}
    added, (reject,) = grow(("ocr", "bees"), ("counting", "wasps"), near=twins)
    assert (added, reject.path, reject.detail) == (["counting~wasps"], "ocr~bees", "counting~wasps")


def test_it_is_not_compared_with_what_is_above_it():
    """Ancestors are part of a path's text, so that a child is near them by nature."""
    near = {"signs": ("scene text", 1.0)}
    assert grow(("ocr~scene text", "signs"), near=near)[0] == ["ocr~scene text~signs"]


def test_a_task_type_is_not_replaced_by_itself_in_other_words():
    nodes = nodes_of("a~b", origin="expand")
    added, (reject,) = grow(("a~b", "bee"), nodes=nodes, near={"bee": ("b", 0.95)})
    assert (added, reject.detail, reject.reason) == ([], "a~b", Reason.NEAR_DUPLICATE_LABEL)
    assert grow(("a~b", "bee"), nodes=nodes, near={"bee": ("b", 0.5)})[0] == ["a~b~bee"]


def test_of_equal_neighbours_the_first_by_path_is_named():
    nodes = nodes_of("z~b", "a~c", "m~d")
    near = {"c": ("b", 1.0), "d": ("b", 1.0), "x": ("b", 0.95)}
    assert grow(("z", "x"), nodes=nodes, near=near)[1][0].detail == "a~c"


HOSTILE = [
    "", "   ", "../../etc/passwd", "<script>alert(1)</script>", "$(rm -rf x)", "a~b", "a\x00b", "\u202eabc",
    "1. reading", "Sure! Here are more categories.", "x" * 81, "\ud800", " ".join(["word"] * 20), "{{7*7}}",
    "'; drop table nodes",
]  # fmt: skip


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_is_a_reject_that_can_be_shown(label):
    added, (reject,) = grow(("ocr", label))
    assert added == []
    assert reject.reason == Reason.NOT_A_LABEL
    assert reject.detail == check(normalise(label))
    assert reject.path == "ocr~" + label_tools.shown(label)
    reject.path.encode()


def test_hostile_labels_are_never_embedded_and_one_call_embeds_each_path_once():
    space = Space()
    asked = [(below("ocr"), label) for label in (*HOSTILE, "bees", "wasps", "Bees", "print")]
    added, rejects = admit(asked, NODES, space, 0.9, None)
    assert [node.path for node in added] == ["ocr~bees", "ocr~wasps"]
    assert len(rejects) == len(HOSTILE) + 2
    (paths,) = space.calls
    assert len(set(paths)) == len(paths)
    assert not any(label in path for path in paths for label in HOSTILE if label.strip())
    space = Space()
    admit([(below("ocr"), "print")], NODES, space, 0.9, None)
    assert space.calls == [], "nothing new, nothing to compare"


def test_under_a_cap_every_branch_gets_its_first_before_any_gets_its_second():
    proposals = [("counting", "c1"), ("counting", "c2"), ("counting", "c3"), ("ocr", "o1"), ("ocr", "o2"), ("", "art")]
    everything = {"art", "counting~c1", "counting~c2", "counting~c3", "ocr~o1", "ocr~o2"}
    for cap in range(len(everything) + 1):
        added, rejects = grow(*proposals, max_new=cap)
        assert len(added) == cap
        assert {reject.detail for reject in rejects} <= {f"{cap} new nodes at most"}
        assert set(added) | {reject.path for reject in rejects} == everything
        of = Counter(path.partition("~")[0] for path in added)
        if cap == 3:
            assert of == {"art": 1, "counting": 1, "ocr": 1}
        if cap == 5:
            assert of == {"art": 1, "counting": 2, "ocr": 2}
    assert set(grow(*proposals, max_new=None)[0]) == everything


def test_under_a_cap_the_alphabet_does_not_say_which_branches_grow():
    proposals = [("", f"{letter} things") for letter in "abcdefghijklmnopqrst"]
    added, _ = grow(*proposals, max_new=5)
    assert len(added) == 5
    assert added != sorted(path for _, path in proposals)[:5]
    assert added == grow(*reversed(proposals), max_new=5)[0], "the same proposals, the same nodes"


def test_a_proposal_below_what_is_not_there_is_our_mistake():
    for path, nodes, why in (("gone", NODES, "not there"), ("a", nodes_of("a", retired={"a"}), "retired")):
        with pytest.raises(TaxonomyError, match=rf"'{path}', which is {why} in this version"):
            admit([(below(path), "x")], nodes, Space(), 0.9, None)


@pytest.mark.parametrize("rows", [np.ones(3), np.ones((1, 4)), np.full((7, 4), np.nan)])
def test_vectors_that_do_not_fit_are_an_error(rows):
    with pytest.raises(ValueError, match="embedded as an array of shape"):
        admit([(below("ocr"), "bees")], NODES, lambda paths: rows, 0.9, None)


def naive(proposals, nodes, space, threshold):
    """The definition, one by one: new paths, and (path, reason, detail) of the rejects."""

    def cosine(a, b):
        return round(float(space.vector(label_tools.name(a)) @ space.vector(label_tools.name(b))), 6)

    leaves = {node.path for node in live_leaves(nodes)}
    live = [node.path for node in nodes if node.status == "live"]
    names = {label_tools.name(path): path for path in sorted(node.path for node in nodes)}
    added, rejects, rest = [], [], []
    for expansion, raw in proposals:
        label = normalise(raw)
        path = label_tools.join(expansion.path, label)
        if check(label):
            rejects.append((label_tools.join(expansion.path, label_tools.shown(raw)), "not a label", check(label)))
        elif label in names:
            rejects.append((path, "duplicate label", names[label]))
        else:
            rest.append(path)
    for path in sorted(rest):
        label, parent = label_tools.name(path), label_tools.parent(path)
        if label in names:
            rejects.append((path, "duplicate label", names[label]))
            continue
        others = {p for p in live if p in leaves or label_tools.parent(p) == parent} - set(label_tools.ancestors(path))
        others |= {parent} & leaves | set(added)
        near = sorted((-cosine(path, other), other) for other in others)
        if near and -near[0][0] >= threshold:
            rejects.append((path, "near-duplicate label", near[0][1]))
        else:
            names[label] = path
            added.append(path)
    return added, sorted(rejects)


WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "A ", "<x>", "", "sign reading", "bees", "wasps", "apples"])
PARENTS = st.sampled_from(["", "ocr", "ocr~scene text", "counting", "counting~apples", "ocr~print"])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(PARENTS, WORDS), max_size=14),
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(st.sampled_from(["d", "e", "f", "apples"]), st.sampled_from([0.5, 0.9, 0.95, 1])),
    ),
    st.randoms(),
)
def test_admission_is_that_of_the_definition_in_any_order_of_replies(proposals, near, random):
    asked = [(below(path) if path else ROOT, label) for path, label in proposals]
    added, rejects = admit(asked, NODES, Space(near), 0.9, None)
    assert len(added) + len(rejects) == len(asked)
    expected, refused = naive(asked, NODES, Space(near), 0.9)
    assert [node.path for node in added] == expected
    assert sorted((r.path, str(r.reason), r.detail) for r in rejects) == refused
    shuffled, turned = asked[:], NODES[:]
    random.shuffle(shuffled)
    random.shuffle(turned)
    assert admit(shuffled, turned, Space(near), 0.9, None) == (added, rejects)
    names = Counter(label_tools.name(node.path) for node in [*NODES, *added])
    assert max(names.values()) == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(PARENTS, st.integers(0, 14)), max_size=40), st.integers(0, 2**32 - 1))
def test_admission_block_by_block_is_that_of_the_definition(proposals, seed):
    """Vectors so crowded that most are near some other, in blocks and tiles of a few; labels repeat."""
    asked = [(below(path) if path else ROOT, f"l{number}") for path, number in proposals]

    class Narrow(Space):
        def axis(self, label):
            return np.random.default_rng([seed, zlib.crc32(label.encode())]).normal(size=3)

        def vector(self, label):
            vector = super().vector(label)
            return vector / np.linalg.norm(vector)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", 3)
        patch.setattr(neighbours, "TILE", 2)
        added, rejects = admit(asked, NODES, Narrow(), 0.8, None)
    expected, refused = naive(asked, NODES, Narrow(), 0.8)
    assert [node.path for node in added] == expected
    assert sorted((r.path, str(r.reason), r.detail) for r in rejects) == refused


def test_a_second_round_of_the_same_proposals_adds_nothing():
    proposals = [(below("ocr"), "bees"), (ROOT, "art"), (below("counting"), "wasps")]
    added, _ = admit(proposals, NODES, Space(), 0.9, None)
    again, rejects = admit(proposals, [*NODES, *added], Space(), 0.9, None)
    assert again == []
    assert {reject.reason for reject in rejects} == {Reason.DUPLICATE_LABEL}


# The simulated teacher


def request(expansion, count=COUNT, round=1):
    return {
        "request": "expand", "kind": expansion.kind, "path": expansion.path, "existing": list(expansion.existing),
        "count": count, "round": round,
    }  # fmt: skip


REQUESTS = [request(each) for each in expansions(SEEDS, 1)]


def test_the_vocabulary_is_large_right_and_its_own():
    known = vocabulary()
    every = [label for below_path in known.values() for label in below_path]
    assert len(every) >= 800
    assert [label for label in every if normalise(label) != label or check(label)] == []
    assert [label for label, times in Counter(every).items() if times > 1] == []
    for path in known:
        assert path == "" or path.count("~") <= 1
    paths = {label_tools.join(path, label) for path, below_path in known.items() for label in below_path}
    seeds = {label_tools.name(node.path): node.path for node in SEEDS}
    assert [path for path in paths if seeds.get(label_tools.name(path), path) != path] == [], "no seed's name elsewhere"
    groups = {node.path for node in SEEDS} - {node.path for node in live_leaves(SEEDS)}
    assert groups <= set(known), "there is something to say below every group of the seeds"


def test_an_answer_depends_on_seed_place_and_round_alone():
    for asked in REQUESTS[:12]:
        answer = propose(7, asked)
        assert propose(7, dict(reversed(asked.items()))) == answer
        assert propose(7, asked | {"existing": asked["existing"][::-1] * 2}) == answer
        assert propose(7, asked | {"prompt": "another"}) == answer
        assert propose(7, asked | {"count": 4}) == answer[:4], "who asks for fewer gets the first of them"
        assert answer == [planted.label for planted in label_kinds(7, asked)]
    assert any(propose(7, asked) != propose(8, asked) for asked in REQUESTS)
    assert any(propose(7, asked) != propose(7, asked | {"round": 2}) for asked in REQUESTS)


def all_kinds(**rates):
    return [
        (asked, planted) for seed in range(8) for asked in REQUESTS for planted in label_kinds(seed, asked, **rates)
    ]


def test_faults_are_planted_at_their_rates():
    shares = {"duplicate": 0.2, "near-duplicate": 0.1, "junk": 0.15}
    counts = Counter(planted.kind for _, planted in all_kinds(duplicates=0.2, near_duplicates=0.1, junk=0.15))
    total = sum(counts.values())
    assert total > 3000
    for kind, share in shares.items():
        # Requests with nothing to repeat yet plant a little less; five standard deviations of a draw of this size.
        assert counts[kind] / total == pytest.approx(share, abs=0.01 + 5 * (share * (1 - share) / total) ** 0.5), kind
    assert {planted.kind for _, planted in all_kinds(duplicates=0, near_duplicates=0, junk=0)} == {"new"}
    only = Counter(planted.kind for _, planted in all_kinds(duplicates=0, near_duplicates=0, junk=0.5))
    assert set(only) == {"new", "junk"}


def test_what_is_planted_is_what_it_is_said_to_be():
    known = {label for below_path in vocabulary().values() for label in below_path} | {
        label_tools.name(node.path) for node in SEEDS
    }
    for asked, planted in all_kinds(duplicates=0.2, near_duplicates=0.2, junk=0.2):
        label = normalise(planted.label)
        if planted.kind == "junk":
            assert check(label), planted
        elif planted.kind == "new":
            assert label in vocabulary()[asked["path"]]
            assert label not in asked["existing"]
        elif planted.kind == "duplicate":
            assert label == planted.of and label in known
        else:
            assert check(label) is None and label not in known, planted
            assert planted.of in known


def test_no_label_is_new_twice_in_an_answer():
    for asked in REQUESTS:
        new = [planted.label for planted in label_kinds(3, asked | {"count": 1000}) if planted.kind == "new"]
        assert len(set(new)) == len(new)


def test_a_node_is_exhausted_once_all_is_said():
    for path in ("", "ocr", "ocr~scene text ocr"):
        everything = [*vocabulary()[path], *compositions().get(path, ())]
        asked = {"kind": "x", "path": path, "existing": everything, "count": 12, "round": 5}
        assert propose(1, asked) == []
        last = propose(1, asked | {"existing": everything[1:]}, junk=0, duplicates=0, near_duplicates=0)
        assert last == everything[:1]
        said = []
        for round in range(1, 200):
            new = [
                planted.label
                for planted in label_kinds(1, asked | {"existing": said, "round": round})
                if planted.kind == "new"
            ]
            if not new:
                break
            said += new
        assert sorted(said) == sorted(everything), "in the end all of it, and nothing twice"
    assert propose(1, {"path": "what nobody ever heard of"}) == []


@pytest.mark.parametrize("count", [0, -3, 1, 5, 10**9])
def test_an_answer_is_never_longer_than_asked(count):
    for asked in REQUESTS[:5]:
        assert len(propose(1, asked | {"count": count})) <= max(0, count)


def test_a_request_may_lack_everything():
    assert len(propose(1, {})) == COUNT
    assert propose(1, {}) == propose(1, {"path": None, "existing": None})


def test_composed_labels_are_many_right_and_said_once_the_lists_are_exhausted():
    leaves = [f"{path}~{label}" for path, said in compositions().items() if "~" in path for label in said]
    groups = [f"{path}~{label}" for path, said in compositions().items() if "~" not in path for label in said]
    assert len(leaves) > 25_000
    assert set(groups) == {path for path in compositions() if "~" in path}
    assert {path for path in compositions() if "~" not in path} == set(vocabulary()[""])
    names = [label_tools.name(path) for path in (*leaves, *groups)]
    assert [label for label in names if normalise(label) != label or check(label)] == []
    known = {label for said in vocabulary().values() for label in said} | {label_tools.name(n.path) for n in SEEDS}
    assert [label for label, times in Counter(names).items() if times > 1 or label in known] == []
    asked = {"kind": "level2", "path": "ocr", "existing": [], "count": 200, "round": 1}
    assert {planted.label for planted in label_kinds(1, asked) if planted.kind == "new"} == set(vocabulary()["ocr"])
    then = label_kinds(1, asked | {"existing": list(vocabulary()["ocr"])})
    assert {planted.label for planted in then if planted.kind == "new"} == set(compositions()["ocr"])
    cousin = compositions()["ocr"][0]
    then = propose(1, asked | {"existing": list(vocabulary()["ocr"]), "cousins": [cousin]}, junk=0, near_duplicates=0)
    assert cousin not in then


def test_growing_by_the_simulated_teacher_is_the_same_each_time_and_ends(monkeypatch):
    """Rounds until nothing new comes, with a space in which planted twins are near: all that is new is admitted.

    Without composed labels, which are too many for a test.
    """
    monkeypatch.setattr(simulated_expansion, "compositions", dict)

    def run():
        nodes, rejects, rounds = list(SEEDS), Counter(), 0
        while True:
            rounds += 1
            near, asked = {}, []
            for each in expansions(nodes, rounds):
                for planted in label_kinds(5, request(each, 200, rounds)):
                    asked.append((each, planted.label))
                    if planted.kind == "near-duplicate":
                        near[normalise(planted.label)] = (planted.of, 0.99)
            added, refused = admit(asked, nodes, CrowdedSpace(near), 0.93, None)
            rejects.update(reject.reason for reject in refused)
            nodes += added
            if not added:
                return [node.path for node in nodes], rejects, rounds

    paths, rejects, rounds = run()
    assert run() == (paths, rejects, rounds)
    assert rounds < 10
    written = {node.path for node in live_leaves(SEEDS)}  # nothing grows below them
    every = {
        label_tools.join(path, label)
        for path, below_path in vocabulary().items()
        for label in below_path
        if path not in written
    }
    assert every <= set(paths)
    assert {node.path for node in SEEDS} <= set(paths)
    assert {Reason.NOT_A_LABEL, Reason.DUPLICATE_LABEL, Reason.NEAR_DUPLICATE_LABEL} == set(rejects)
    json.dumps(paths).encode()
