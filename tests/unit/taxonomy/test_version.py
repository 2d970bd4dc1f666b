"""Labels, the seeds that ship, files that people write, and versions: what is right stays, what is wrong is named."""

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node
from taskgalaxy_ops.taxonomy import (
    TaxonomyVersion,
    add_types,
    check,
    check_path,
    diff,
    label_text,
    live_leaves,
    load_seeds,
    normalise,
    normalise_path,
    tree,
)
from taskgalaxy_ops.taxonomy import labels as label_tools
from taskgalaxy_ops.taxonomy.version import struck_out

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))
LABELISH = st.text(alphabet="aZéß'’-–&() 1\t\u00a0.~<$İΣς", max_size=30)


def nodes_of(*paths, origin="seed", status="live"):
    """Nodes of these paths and of all above them."""
    known = {}
    for path in paths:
        for each in (*label_tools.ancestors(path), path):
            known[each] = Node(each, label_tools.level(each), origin, status)
    return [known[path] for path in sorted(known)]


def written(tmp_path, text):
    file = tmp_path / "types.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def complaint(tmp_path, text):
    with pytest.raises(TaxonomyError) as caught:
        load_seeds(written(tmp_path, text))
    return str(caught.value)


# Labels


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("  Sign Reading ", "sign reading"),
        ("Sign\tReading\r\n", "sign reading"),
        ("sign \u00a0\u2003 reading", "sign reading"),
        ("children\u2019s book", "children's book"),
        ("look\u2011up & more", "look-up & more"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u0130stanbul", "i\u0307stanbul"),
        ("STRASSE ß", "strasse ß"),
        ("", ""),
    ],
)
def test_a_label_has_one_spelling(raw, label):
    assert normalise(raw) == label


@given(ANY_TEXT | LABELISH)
@example("\u1e9e")
@example("\u03a3\u03a3")
@example("a \r\n b\n")
@example("\n \n")
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    assert check(once) != "not normalised (NFC, lower case, single blanks)"
    assert normalise_path(normalise_path(text)) == normalise_path(text)


@given(LABELISH | ANY_TEXT)
def test_what_passes_can_be_shown_and_split_again(text):
    label = normalise(text)
    if check(label) is None:
        assert label == label.strip() == normalise(label)
        assert label_tools.shown(label) == label
        assert not set(label) & set('~<>$`|;{}*/\\"\n\r\t\0')
        assert all(unicodedata.category(c)[0] not in "CZ" or c == " " for c in label)
        assert check_path(f"{label}~{label}") is None
        label.encode()


@pytest.mark.parametrize(
    "label",
    ["ocr", "sign reading", "2d shapes", "look-up", "children's drawings", "charts & tables", "colour (hex) reading",
     "schrift lesen", "größe", "文字認識", "чтение знаков", "قراءة النص", "हिन्दी पाठ", "a" * 80, " ".join(["ab"] * 10)],
)  # fmt: skip
def test_labels_of_any_script_pass(label):
    assert check(normalise(label)) is None
    assert check_path(f"ocr~{normalise(label)}") is None


HOSTILE = {
    "": "empty",
    "a" * 81: "81 characters, 80 at most",
    "a~b": "separates levels",
    "a\x00b": "control character U+0000",
    "a\x1b[31m": "control character U+001B",
    "a\u2028b": "control character U+2028",
    "a\ud800": "control character U+D800",
    "a\ue000": "control character U+E000",
    "\u202eabc": "invisible character U+202E",
    "a\u200bb": "invisible character U+200B",
    "a\ufe0f": "invisible character U+FE0F",
    "a\u3164b": "invisible character U+3164",
    "../../etc/passwd": "looks like a path",
    "a/b": "looks like a path",
    "a\\b": "looks like a path",
    "c:windows": "looks like a path",
    "a%2fb": "looks like a path",
    "<b>bold": "holds markup",
    "&amp; more": "holds markup",
    "a; rm -rf b": "characters of a shell",
    "$(touch x)": "characters of a shell",
    "{a}": "characters of a shell",
    "`a`": "characters of a shell",
    "1. reading": "list mark",
    "- reading": "list mark",
    "(2) reading": "list mark",
    "sure! more": "is prose",
    "here are some labels": "is prose",
    "as an ai model": "is prose",
    "none": "is prose",
    " ".join(["ab"] * 11): "more than 10 words",
    'say "hi"': "letters, digits, blanks",
    "50% off": "letters, digits, blanks",
    "emoji 😀": "letters, digits, blanks",
    "a,b": "letters, digits, blanks",
    "a\nb": "control character U+000A",
    "'quoted'": "does not begin with a letter or digit",
    "& more": "does not begin with a letter or digit",
    "123 45": "holds no letter",
    "read- ing": "hyphen that joins no words",
    "read--ing": "hyphen that joins no words",
    "a (b": "parentheses",
    "a )b(": "parentheses",
    "z" + "\u0335" * 3: "stack of combining marks",
    "Upper": "not normalised",
    "two  blanks": "not normalised",
}


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_says_what_is_wrong_with_it(label):
    assert HOSTILE[label] in check(label)
    if label != "a~b":
        shown = check_path(f"ocr~{label}")
        assert shown.startswith("level 2 '") and HOSTILE[label] in shown
        assert all(unicodedata.category(c)[0] != "C" for c in shown), "fit for a log"


def test_a_path_has_four_levels_at_most():
    assert check_path("a~b~c~d") is None
    assert check_path("a~b~c~d~e") == "5 levels, 4 at most"
    assert check_path("a~~b") == "level 2 '': empty"


@given(ANY_TEXT)
def test_what_is_shown_is_short_and_visible(text):
    shown = label_tools.shown(text, 20)
    assert len(re.sub(r"\\u[0-9a-f]{4,6}", "?", shown)) <= 20
    assert not any(unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") for c in shown)


def test_paths_are_taken_apart_and_joined():
    assert [label_tools.level(path) for path in ("a", "a~b", "a~b~c")] == [1, 2, 3]
    assert (label_tools.name("a~b~c"), label_tools.parent("a~b~c"), label_tools.parent("a")) == ("c", "a~b", "")
    assert label_tools.ancestors("a~b~c") == ["a", "a~b"]
    assert (label_tools.join("", "a"), label_tools.join("a~b", "c")) == ("a", "a~b~c")
    assert label_text("ocr~scene text ocr~sign reading") == "sign reading, scene text ocr, ocr"


# The seeds that ship


SEEDS = load_seeds()
LEAVES = live_leaves(SEEDS)


def test_the_seeds_are_broad():
    first = [node.path for node in SEEDS if node.level == 1]
    assert len(LEAVES) >= 120
    assert len(first) >= 12
    below = Counter(node.path.split("~")[0] for node in LEAVES)
    assert min(below[path] for path in first) >= 3, "a first-level node is more than a name"
    assert max(below.values()) < len(LEAVES) / 4


def test_every_seed_says_what_is_asked_and_how_it_can_be_checked():
    for node in LEAVES:
        assert node.about and len(node.about) > 20, node.path
        assert node.about.endswith("."), node.path
        assert len(node.about) <= 200, node.path


def test_seeds_are_normalised_and_in_order():
    assert [node.path for node in SEEDS] == sorted({node.path for node in SEEDS})
    for node in SEEDS:
        assert normalise_path(node.path) == node.path
        assert check_path(node.path) is None
        assert (node.level, node.origin, node.status) == (node.path.count("~") + 1, "seed", "live")


def test_no_two_seeds_share_a_name():
    names = Counter(node.path.split("~")[-1] for node in SEEDS)
    assert [name for name, times in names.items() if times > 1] == []
    abouts = Counter(node.about for node in LEAVES)
    assert [about for about, times in abouts.items() if times > 1] == []


def test_the_seeds_make_a_version():
    version = TaxonomyVersion(0, None, tuple(SEEDS))
    assert version.leaves() == LEAVES
    assert tree(version)[0].startswith(f"version 0: {len(LEAVES)} task types in ")


# Files that people write


NESTED = """
ocr:
  scene text ocr:
    Sign Reading: Asks what a sign says.
    shop name reading:
  plain text: [title reading, word counting]
counting:
  - apple counting
  - pear counting
art: What one asks of art.
"""


def test_a_nested_file(tmp_path):
    nodes = load_seeds(written(tmp_path, NESTED))
    assert [(node.path, node.about) for node in live_leaves(nodes)] == [
        ("art", "What one asks of art."),
        ("counting~apple counting", None),
        ("counting~pear counting", None),
        ("ocr~plain text~title reading", None),
        ("ocr~plain text~word counting", None),
        ("ocr~scene text ocr~Sign Reading", "Asks what a sign says."),
        ("ocr~scene text ocr~shop name reading", None),
    ]
    assert [node.path for node in nodes if node.level < 3 and node not in live_leaves(nodes)] == [
        "counting",
        "ocr",
        "ocr~plain text",
        "ocr~scene text ocr",
    ]


def test_a_list_of_paths(tmp_path):
    nodes = load_seeds(written(tmp_path, "- ocr~scene text ocr~sign reading\n- OCR ~ Handwriting, printed\n"))
    assert [node.path for node in nodes] == [
        "OCR",
        "OCR~Handwriting, printed",
        "OCR~scene text ocr",
        "OCR~scene text ocr~sign reading",
    ], "of two spellings of a group, the first in order"
    assert {node.origin for node in nodes} == {"seed"}


def test_words_that_yaml_reads_as_something_else_are_labels(tmp_path):
    nodes = load_seeds(written(tmp_path, "yes no: {true: a, on: b, 3d: c}\n"))
    assert [node.path for node in live_leaves(nodes)] == ["yes no~3d", "yes no~on", "yes no~true"]


MISTAKES = {
    "not YAML": ("a: [", r"types\.yaml, line 1 is not YAML: .*"),
    "tab": ("a:\n\tb: c", r"types\.yaml, line 2 is not YAML: .*"),
    "NUL": ("a\0: b", r"types\.yaml is not YAML: .*"),
    "not UTF-8": (b"ocr: \xff", r"types\.yaml is not UTF-8 text \(byte 5\): save it as UTF-8"),
    "empty": ("", r"seed file .*cannot be used:\n  it holds no label"),
    "a comment": ("# nothing\n", r"it holds no label"),
    "a text": ("just text", r"types\.yaml holds a single text"),
    "two documents": ("a: b\n---\nc: d", r"line 2 is not YAML: .*another document"),
    "unknown alias": ("a: *b", r"line 1 is not YAML: .*alias"),
    "twice": (
        "ocr:\n  a: x\n  b: y\n  A: z\n",
        r"line 4: 'ocr~A' is there already \(line 2\), spelled 'ocr~a'; remove one",
    ),
    "twice in a list": (
        "- a~b\n- c\n- A ~ b\n",
        r"line 3: 'A~b' is there already \(line 1\), spelled 'a~b'; remove one",
    ),
    "a group twice": (
        "ocr: {a: x}\nart: {c: d}\nocr: {b: y}\n",
        r"line 3: 'ocr' is there already \(line 1\); remove one",
    ),
    "markup": ("ocr:\n  <b>x: y\n", r"line 2: level 2 '<b>x': holds markup"),
    "a formula": ("- ocr\n- =1+1\n", r"line 2: begins with '=', which a spreadsheet takes for a formula"),
    "a token": ("ocr:\n  <|im_end|>: y\n", r"line 2: level 2 '<\|im_end\|>': holds a token that .* obey"),
    "separator in a label": ("ocr~a: {b: c}\n", r"line 1: 'ocr~a' holds '~': nest it, or write a list of paths"),
    "invisible": ("ocr:\n  si\u200bgn: y\n", r"line 2: level 2 'si\\u200bgn': holds the invisible character U\+200B"),
    "too deep": ("a: {b: {c: {d: {e: x}}}}\n", r"line 1: 'a~b~c~d' has children on level 5; 4 at most"),
    "too deep in a list": ("- a~b~c~d~e\n", r"line 1: 5 levels, 4 at most"),
    "an alias to itself": ("a: &x\n  b: *x\n", r"has children on level 5; 4 at most"),
    "a list of lists": ("ocr:\n  - a\n  - [b]\n", r"line 3: a label is text, not a list or mapping"),
    "a list of mappings": ("ocr:\n  - a\n  - b: c\n", r"line 3: a label is text, not a list or mapping"),
    "a mapping for a key": ("? {a: b}\n: c\n", r"line 1: a label is text, not a list or mapping"),
    "an empty label": ("ocr:\n  '': x\n", r"line 2: level 2 '': empty"),
    "too long": (f"ocr:\n  {'a' * 301}: x\n", r"line 2: level 2 'a+…': 301 characters, 300 at most"),
    "half a path": ("- ocr~\n", r"line 1: level 2 '': empty"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_the_fix(tmp_path, kind):
    text, why = MISTAKES[kind]
    found = complaint(tmp_path, text)
    assert re.search(why, found), found
    assert "types.yaml" in found
    if kind != "not UTF-8":
        assert found.endswith(
            "  Write 'first level: {second level: {leaf: what is asked}}', or a list of paths joined by '~'."
        )


def test_many_mistakes_are_told_at_once_and_the_rest_counted(tmp_path):
    found = complaint(tmp_path, "".join(f"- <b{i}>\n" for i in range(12)))
    assert [f"line {i + 1}:" in found for i in range(12)] == [True] * 8 + [False] * 4
    assert "\n  and 4 more\n" in found


def test_a_file_that_is_not_there_says_which_setting_names_it(tmp_path):
    with pytest.raises(TaxonomyError, match=r"gone\.yaml cannot be read: No such file.*\n.*`taxonomy\.seeds`"):
        load_seeds(tmp_path / "gone.yaml")
    with pytest.raises(TaxonomyError, match="cannot be read"):
        load_seeds(tmp_path)


# Task types added by hand

TEN = [
    "ocr~scene text ocr~graffiti reading",
    "ocr~scene text ocr~neon sign reading",
    "ocr~braille reading",
    "counting~penguin counting",
    "Weather ~ Cloud Naming",
    "weather~rain detection",
    "weather~wind~flag direction",
    "weather~wind~smoke direction",
    "sewing~stitch naming",
    "heraldry",
]


def test_ten_types_by_hand_are_exactly_ten_more():
    grown = add_types(SEEDS, TEN)
    new = {node.path: node for node in grown if node not in SEEDS}
    leaves = {node.path for node in live_leaves(grown)} - {node.path for node in LEAVES}
    assert leaves == {label_tools.as_written(path).replace("weather~", "Weather~") for path in TEN}
    assert set(new) - leaves == {"Weather", "Weather~wind", "sewing"}
    assert {(node.origin, node.status, node.about) for node in new.values()} == {("hand", "live", None)}
    assert [node for node in grown if node.path not in new] == SEEDS
    assert [node.path for node in grown] == sorted(node.path for node in grown)
    assert add_types(SEEDS, TEN[::-1]) == grown


def test_adding_what_is_there_changes_nothing():
    there = [LEAVES[0].path, LEAVES[5].path.upper()]
    assert add_types(SEEDS, there) == SEEDS
    assert add_types(add_types(SEEDS, TEN), TEN) == add_types(SEEDS, TEN)


def test_a_file_of_types_is_read_like_seeds(tmp_path):
    grown = add_types(SEEDS, written(tmp_path, "weather:\n  cloud naming: Asks for the kind of cloud.\n"))
    (leaf,) = set(live_leaves(grown)) - set(LEAVES)
    assert (leaf.path, leaf.origin, leaf.about) == ("weather~cloud naming", "hand", "Asks for the kind of cloud.")


def test_a_retired_type_that_is_added_again_lives_again():
    version = TaxonomyVersion(0, None, tuple(nodes_of("a~b~c", "a~b~d"))).retire("a")
    assert version.leaves() == ()
    again = {node.path: (node.status, node.origin) for node in add_types(version.nodes, ["a~b~c"])}
    assert again == {
        "a": ("live", "seed"),
        "a~b": ("live", "seed"),
        "a~b~c": ("live", "seed"),
        "a~b~d": ("retired", "seed"),
    }


def test_one_type_may_be_given_as_a_text():
    assert add_types([], "a~b")[-1].path == "a~b"


@pytest.mark.parametrize(
    ("types", "why"),
    [
        (["ocr~ok", "ocr~<b>"], "entry 2: level 2 '<b>': holds markup"),
        (
            ["a~b", "A~ B"],
            "entry 2: 'A~B' is there already (entry 1), spelled 'a~b'; remove one",
        ),
        ([], "it holds no label"),
        ([""], "entry 1: level 1 '': empty"),
        (["a~b~c~d~e"], "entry 1: 5 levels, 4 at most"),
        (["x\u202ey"], "entry 1: level 1 'x\\u202ey': holds the invisible character U+202E"),
    ],
)
def test_a_mistake_in_a_list_names_its_entry(types, why):
    with pytest.raises(TaxonomyError) as caught:
        add_types(SEEDS, types)
    assert str(caught.value).splitlines()[:2] == ["the list of task types cannot be used:", f"  {why}"]


# Versions


def version_of(*paths, number=0):
    return TaxonomyVersion(number, None, tuple(nodes_of(*paths)))


def test_a_version_is_the_same_in_whatever_order_its_nodes_come():
    nodes = nodes_of("a~b~c", "a-b", "a b", "z")
    assert TaxonomyVersion(0, None, tuple(nodes[::-1])) == TaxonomyVersion(0, None, tuple(nodes))
    assert [node.path for node in version_of("b", "a~c", "a-b").leaves()] == ["a-b", "a~c", "b"]


def test_a_version_that_is_none_says_why():
    a, ab = nodes_of("a~b")
    for nodes, why in (
        ((a, ab, a), r"version 3: 'a' is there 2 times, once is right"),
        ((ab,), r"version 3: 'a~b' has no parent: add 'a'"),
        ((a, Node("a~b", 3, "seed", "live")), r"'a~b' says that it lies on level 3; its path has 2"),
        ((Node("a", 1, "seed", "retired"), ab), r"'a~b' is live below 'a', which is retired: retire both, or neither"),
    ):
        with pytest.raises(TaxonomyError, match=why):
            TaxonomyVersion(3, None, nodes)


def test_adding_and_retiring_make_the_next_version_and_leave_this_one():
    zero = version_of("a~b", "a~c", "ab")
    one = zero.add(nodes_of("d", origin="hand"))
    two = one.retire("a")
    assert (zero.number, one.number, two.number) == (0, 1, 2)
    assert (one.base, two.base) == (0, 1)
    assert [node.path for node in zero.leaves()] == ["ab", "a~b", "a~c"]
    assert [node.path for node in two.leaves()] == ["ab", "d"], "'ab' is not below 'a'"
    assert two.find("a~b").status == "retired"
    assert two.find("gone") is None
    with pytest.raises(TaxonomyError, match="'a~b' is there 2 times"):
        zero.add(nodes_of("a~b")[1:])


def test_several_are_retired_at_once_in_whatever_order_they_are_named():
    zero = version_of("a~b", "a~c", "d~e", "d~f")
    one = zero.retire("a", "a~b", "d~e")
    assert one == zero.retire("d~e", "a~b", "a")
    assert (one.number, one.base) == (1, 0)
    assert [node.path for node in one.leaves()] == ["d~f"]
    with pytest.raises(TaxonomyError, match="'g' is not there"):
        zero.retire("a", "g")


def test_retiring_what_is_not_there_is_an_error_with_the_fix():
    one = version_of("a~b").retire("a~b")
    for path, why in (("a~b", "is retired already"), ("b", "is not there"), ("a~\u202e", r"'a~\\u202e' is not there")):
        with pytest.raises(TaxonomyError, match=rf"{why}.*\n.*levels joined by '~'"):
            one.retire(path)


def test_retiring_all_children_makes_no_task_type_of_their_parent():
    assert version_of("a~b").retire("a~b").leaves() == ()


def test_what_changed_between_two_versions():
    zero = version_of("a~b", "a~c", "d")
    one = TaxonomyVersion(1, 0, tuple(add_types(zero.nodes, ["e~f"]))).retire("a~c")
    found = diff(zero, one)
    assert [node.path for node in found.added] == ["e", "e~f"]
    assert [node.path for node in found.retired] == ["a~c"]
    assert (found.removed, found.changed) == ((), ())
    back = diff(one, zero)
    assert [node.path for node in back.removed] == ["e", "e~f"]
    assert [(old.status, new.status) for old, new in back.changed] == [("retired", "live")]
    assert (back.added, back.retired) == ((), ())
    assert found and back
    assert not diff(zero, zero)
    assert not diff(zero, TaxonomyVersion(7, 3, zero.nodes)), "numbers are no content"


def test_a_tree_shows_groups_with_their_counts():
    version = version_of("ocr~scene text~sign", "ocr~scene text~shop", "ocr-x~y", "art").retire("ocr~scene text~shop")
    assert tree(version) == [
        "version 1: 3 task types in 3 first-level nodes",
        "  art",
        "  ocr  (1)",
        "    scene text  (1)",
        "      shop  [retired]",
        "      sign",
        "  ocr-x  (1)",
        "    y",
    ]
    assert tree(version, depth=1) == [tree(version)[0], "  art", "  ocr  (1)", "  ocr-x  (1)"]
    assert tree(TaxonomyVersion(0, None, ())) == ["version 0: 0 task types in 0 first-level nodes"]
    assert len(tree(TaxonomyVersion(0, None, tuple(SEEDS)))) == len(SEEDS) + 1


def grown(*paths, by):
    """Nodes of these paths, and those that ``by`` adds to them."""
    base = nodes_of(*paths)
    return base, [node for node in nodes_of(*by) if node not in base]


def test_what_a_person_strikes_out_of_a_proposal_is_retired_with_all_below_it():
    base, added = grown("ocr~signs", "art", by=("art~line~bold", "art~tone", "ocr~bills"))
    found = {node.path: node.status for node in struck_out([*base, *added], added, ["art~line"])}
    assert found == {
        **dict.fromkeys(("ocr", "ocr~signs", "art", "art~tone", "ocr~bills"), "live"),
        **dict.fromkeys(("art~line", "art~line~bold"), "retired"),
    }
    assert struck_out([*base, *added], added, []) == (*base, *added)


def test_a_task_type_of_whose_new_children_all_are_struck_out_stays_one():
    """A retired child would still be a child, and the node above it no leaf."""
    base, added = grown("ocr~signs", by=("ocr~signs~road~stop", "ocr~signs~shop"))
    nodes = struck_out([*base, *added], added, ["ocr~signs~road", "ocr~signs~shop"])
    assert nodes == tuple(base)
    assert [leaf.path for leaf in live_leaves(nodes)] == ["ocr~signs"]
    base, added = grown("ocr~signs", by=("art~line",))  # a new branch: no task type of the base is at stake
    found = {node.path: node.status for node in struck_out([*base, *added], added, ["art"])}
    assert found == {"ocr": "live", "ocr~signs": "live", "art": "retired", "art~line": "retired"}


def test_what_is_no_new_node_cannot_be_struck_out():
    base, added = grown("ocr", by=("ocr~bills",))
    for wrong in ("ocr", "nothing of the kind", "ocr~bills~x"):
        with pytest.raises(TaxonomyError, match="no new node of this proposal"):
            struck_out([*base, *added], added, [wrong])
