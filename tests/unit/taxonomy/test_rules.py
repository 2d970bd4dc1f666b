"""What a label may not say, which labels say the same, and how a plan decides what is asked next."""

from __future__ import annotations

import pytest

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node, Reason
from taskgalaxy_ops.simulator.expansion import _OFF_TOPIC, compositions, vocabulary
from taskgalaxy_ops.taxonomy import Expansion, admit, check, load_seeds, normalise
from taskgalaxy_ops.taxonomy import labels as label_tools
from taskgalaxy_ops.taxonomy.growth import Plan, emptiest, with_cousins
from taskgalaxy_ops.taxonomy.rules import TaxonomyWords, load_rules
from unit.taxonomy.test_expand import ROOT, Space, below, nodes_of

RULES = load_rules()
SEEDS = [node.path for node in load_seeds()]
ENGLISH = TaxonomyWords(map(label_tools.name, SEEDS))
SAID = {
    path: [*vocabulary().get(path, ()), *compositions().get(path, ())] for path in {**vocabulary(), **compositions()}
}
GOOD = [*SEEDS, *(label_tools.join(path, label) for path in SAID for label in SAID[path])]


def broken(label, parent="animals", known=ENGLISH, rules=RULES):
    """The name of the rule that a label breaks, if any."""
    told = rules.broken(normalise(label), label, parent, known)
    return told and told.partition(":")[0]


def test_seeds_and_the_simulated_vocabulary_break_no_rule():
    wrong = {}
    for path in GOOD:
        label, parent = label_tools.name(path), label_tools.name(label_tools.parent(path))
        if told := RULES.broken(label, label, parent, ENGLISH):
            wrong[path] = told
    assert wrong == {}


def test_seeds_and_the_simulated_vocabulary_say_each_thing_once():
    said = {}
    for path in dict.fromkeys(GOOD):
        said.setdefault(RULES.wording(label_tools.name(path)), []).append(path)
    assert [paths for paths in said.values() if len(paths) > 1] == []


@pytest.mark.parametrize(
    ("label", "rule"),
    [
        ("translate the poem you wrote", "no task on an image"),
        ("run this program", "no task on an image"),
        ("audio transcription", "no task on an image"),
        ("online search for prices", "no task on an image"),
        ("reading of the very small and faded old text there", "too long"),
        ("animals", "same as its parent"),
        ("other kinds of animal", "same as its parent"),
        ("counting and describing birds", "two tasks in one"),
        ("bird detection then counting", "two tasks in one"),
        ("recognition of Angela in photographs", "proper name"),
        ("eiffel tower photographs", "proper name"),
        ("zählen von vögeln im bild", "another language"),
        ("lectura de texto", "another language"),
        ("подсчёт птиц", "another language"),
        ("鸟类计数", "another language"),
        ("credit card number reading", "personal or unsafe"),
        ("ethnicity inference", "personal or unsafe"),
        ("who is this person", "personal or unsafe"),
    ],
)
def test_a_label_is_refused_by_the_rule_that_it_breaks(label, rule):
    assert broken(label) == rule


@pytest.mark.parametrize(
    "label",
    ["Sign Reading", "recognition of Venn diagrams", "errors in OCR", "header & footer identification", "source code",
     "sound imagination", "speech bubble reading", "bird counting", "reading of French menus", "young animals"],
)  # fmt: skip
def test_precision_comes_first(label):
    assert broken(label) is None


def test_the_taxonomys_own_language_is_not_another():
    german = TaxonomyWords(["zählen von vögeln im bild"])
    assert broken("lesen von text im bild", known=german) is None
    assert broken("птицы", known=TaxonomyWords(["животные"])) is None


@pytest.mark.parametrize(
    "label",
    ["sign reading", "reading of signs", "reading of the signs", "Sign read-out", "signs, reading", "read the sign",
     "sign-reading", "reading signs in the image"],
)  # fmt: skip
def test_the_same_in_the_same_words_is_one_wording(label):
    assert RULES.wording(normalise(label)) == RULES.wording("sign reading")


def test_colour_or_color_check_or_verification_look_up_or_lookup():
    for one, other in (("colour check", "color verification"), ("price lookup", "price look-up"), ("a & the", "the")):
        assert RULES.wording(one) == RULES.wording(other) or one == "a & the"
    assert RULES.wording("text to image matching") == RULES.wording("matching of text to image")
    assert RULES.wording("sign reading") != RULES.wording("sign finding")


def test_a_reject_names_the_rule_or_the_neighbour_wherever_it_is():
    nodes = nodes_of("ocr~signs~street sign reading", "traffic~roads")
    asked = [(below("traffic"), "reading of street signs"), (below("ocr"), "run this program"), (below("ocr"), "bees")]
    added, rejects = admit(asked, nodes, Space(), 0.9, None, RULES)
    assert [node.path for node in added] == ["ocr~bees"]
    assert [(reject.path, reject.reason, reject.detail) for reject in rejects] == [
        ("ocr~run this program", Reason.BY_RULE, "no task on an image: run this"),
        ("traffic~reading of street signs", Reason.NEAR_DUPLICATE_LABEL, "ocr~signs~street sign reading"),
    ]


def test_of_two_proposals_in_the_same_words_the_first_is_admitted():
    asked = [(below("ocr~scene text"), "signs of bees"), (below("counting"), "bee signs")]
    added, (reject,) = admit(asked, nodes_of("ocr~scene text~x", "counting~apples"), Space(), 0.9, None, RULES)
    assert [node.path for node in added] == ["counting~bee signs"]
    assert (reject.reason, reject.detail) == (Reason.NEAR_DUPLICATE_LABEL, "counting~bee signs")


def test_what_the_simulated_teacher_says_off_topic_is_refused():
    for spoil in _OFF_TOPIC:
        label = spoil("dog breed identification")
        assert check(normalise(label)) or broken(label), label


def test_rules_of_ones_own_are_laid_over_the_packages(tmp_path):
    own = tmp_path / "rules.yaml"
    own.write_text(
        "rules:\n  two tasks in one: null\n  no weather: {patterns: ['\\bweather\\b'], except: ['space weather']}\n"
        "same: [[dog, hound]]\n",
        "utf-8",
    )
    rules = load_rules(own)
    assert broken("counting and describing birds", rules=rules) is None
    assert broken("weather description", rules=rules) == "no weather"
    assert broken("space weather description", rules=rules) is None
    assert broken("run this program", rules=rules) == "no task on an image"
    assert rules.wording("hound breed") == rules.wording("breed of dogs")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: {a: {patterns: ['(']}}", r"'\(' is no regular expression"),
        ("rules: {a: {kind: odd}}", "kind"),
        ("rulez: {}", "rulez"),
        ("rules: [", "cannot be read"),
        ("a text", "rules of labels"),
    ],
)
def test_a_wrong_file_of_rules_is_named_with_what_is_wrong(tmp_path, text, told):
    own = tmp_path / "rules.yaml"
    own.write_text(text, "utf-8")
    with pytest.raises(TaxonomyError, match=told) as raised:
        load_rules(own)
    assert str(own) in str(raised.value)


# The plan


def asked(path, *existing):
    depth = path.count("~") + 1 if path else 0
    return Expansion(("level1", "level2", "level3")[depth], path, existing, 1)


def test_a_node_is_asked_for_as_many_as_it_may_get():
    plan = Plan(12, (5, 3, 2))
    wanted = [asked(""), asked("a", "x", "y"), asked("b", "x", "y", "z"), asked("a~b", "x")]
    assert [plan.count(one) for one in wanted] == [5, 1, 0, 1]
    assert [one.path for one in plan.wanted(wanted, {})] == ["", "a", "a~b"]
    assert [Plan(12).count(one) for one in wanted] == [12] * 4


def test_a_node_whose_last_proposals_were_not_new_is_not_asked_again():
    wanted = [asked("a"), asked("b"), asked("c")]
    assert [one.path for one in Plan(12, None, 0.5).wanted(wanted, {"a": 0.49, "b": 0.5})] == ["b", "c"]
    assert len(Plan(12).wanted(wanted, {"a": 0.0})) == 3


def test_those_with_the_fewest_children_come_first():
    wanted = [asked("a", "x"), asked("a~b"), asked("b"), asked("c", "x", "y")]
    assert [one.path for one in emptiest(wanted, 2)] == ["a~b", "b"]
    assert [one.path for one in emptiest(wanted, 1)] == ["b"], "breadth first"
    assert emptiest(wanted, 4) == wanted
    many = [asked(letter) for letter in "abcdefghijklmnop"]
    assert [one.path for one in emptiest(many, 4)] != list("abcd"), "the alphabet does not decide"


def test_cousins_are_the_nearest_of_the_same_level_below_other_nodes():
    nodes = nodes_of("pets~dogs", "pets~cats", "farm~hounds", "farm~barns", "zoo")
    near = {"pets": ("hounds", 0.9), "zoo": ("barns", 0.5)}
    found = with_cousins([ROOT, below("pets"), below("zoo")], nodes, Space(near), 2)
    assert [one.cousins for one in found] == [(), ("hounds", "barns"), ("barns", "hounds")], (
        "of equals the first by path"
    )
    assert with_cousins([ROOT], [Node("a", 1, "seed", "live")], Space(), 2) == [ROOT]
