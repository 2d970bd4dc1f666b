"""Rename, move and merge: what goes where, as what it is asked, what stays behind, and what is refused."""

from __future__ import annotations

import pytest

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import LabelReject, Node, Reason
from taskgalaxy_ops.taxonomy import Expansion, Renamed, TaxonomyVersion, add_types, admit, aliases, diff, labels
from taskgalaxy_ops.taxonomy.version import asked


def version_of(*paths: str) -> TaxonomyVersion:
    return TaxonomyVersion(0, None, tuple(add_types([], paths)))


BASE = version_of("ocr~signs~shop signs", "ocr~signs~road signs", "ocr~notes", "art~style", "art~notes", "count")


def embed(paths):
    """Vectors by which no two paths are near."""
    return [[1.0 * (one == other) for other in paths] for one in paths]


def leaves(version: TaxonomyVersion) -> dict[str, str]:
    """The task types, and as what each is asked."""
    return {node.path: asked(node) for node in version.leaves()}


def test_a_rename_is_asked_as_before_and_leaves_a_pointer():
    after = aliases.rename(BASE, "ocr~notes", "handwriting")
    assert leaves(after) == {
        **{path: path for path in leaves(BASE) if path != "ocr~notes"},
        "ocr~handwriting": "ocr~notes",
    }
    former = after.find("ocr~notes")
    assert former is not None and (former.status, former.successor) == ("retired", "ocr~handwriting")
    assert after.asked() == BASE.asked(), "so match computes nothing anew"
    assert (after.shown("ocr~notes"), after.asked_of("ocr~notes")) == ("ocr~handwriting", "ocr~notes")
    assert diff(BASE, after).renamed == (Renamed("ocr~notes", "ocr~handwriting", "renamed", True),)
    changes = diff(BASE, after)
    assert not (changes.added or changes.removed or changes.retired or changes.changed)


def test_a_branch_takes_along_all_below_it():
    after = aliases.rename(BASE, "ocr", "Text, printed")
    assert leaves(after) == {
        "Text, printed~notes": "ocr~notes",
        "Text, printed~signs~road signs": "ocr~signs~road signs",
        "Text, printed~signs~shop signs": "ocr~signs~shop signs",
        "art~notes": "art~notes",
        "art~style": "art~style",
        "count": "count",
    }
    assert {node.path: node.successor for node in after.nodes if node.status == "retired"} == {
        path: path.replace("ocr", "Text, printed", 1)
        for path in ("ocr", "ocr~notes", "ocr~signs", "ocr~signs~road signs", "ocr~signs~shop signs")
    }


def test_asked_again_under_the_new_path():
    after = aliases.rename(BASE, "ocr~notes", "handwriting", keep=False)
    assert leaves(after)["ocr~handwriting"] == "ocr~handwriting"
    assert diff(BASE, after).renamed == (Renamed("ocr~notes", "ocr~handwriting", "renamed", False),)


def test_a_move_keeps_the_name():
    after = aliases.move(BASE, "ocr~signs", "art")
    assert leaves(after)["art~signs~road signs"] == "ocr~signs~road signs"
    assert {each.how for each in diff(BASE, after).renamed} == {"moved"}
    top = aliases.move(BASE, "OCR~Notes", "")
    assert leaves(top)["notes"] == "ocr~notes"


def test_there_and_back_is_as_it_was():
    after = aliases.rename(aliases.rename(BASE, "ocr", "text"), "text", "ocr")
    assert leaves(after) == leaves(BASE)
    assert after.asked() == BASE.asked()
    assert after.became("text~notes") == "ocr~notes"


def test_two_renames_are_one():
    after = aliases.rename(aliases.rename(BASE, "ocr", "text"), "text~notes", "text~jottings")
    assert leaves(after)["text~jottings"] == "ocr~notes"
    assert after.became("ocr~notes") == "text~jottings"
    assert Renamed("ocr~notes", "text~jottings", "renamed", True) in diff(BASE, after).renamed


def test_another_spelling_leaves_nothing_behind():
    after = aliases.rename(BASE, "ocr", "OCR")
    assert leaves(after)["OCR~notes"] == "ocr~notes"
    assert [node.path for node in after.nodes if node.status == "retired"] == []
    assert {(each.before, each.how) for each in diff(BASE, after).renamed} == {
        (node.path, "renamed" if node.level == 1 else "moved") for node in BASE.nodes if node.path.startswith("ocr")
    }
    assert diff(BASE, after).removed == diff(BASE, after).added == ()


def test_merged_into_one_that_is_there():
    after = aliases.merge(BASE, ["ocr~notes"], "art~notes")
    assert "ocr~notes" not in leaves(after)
    assert leaves(after)["art~notes"] == "art~notes"
    assert after.became("ocr~notes") == "art~notes"
    assert diff(BASE, after).renamed == (Renamed("ocr~notes", "art~notes", "merged", False),)


def test_merged_into_a_new_one_the_first_stands():
    after = aliases.merge(BASE, ["ocr~notes", "art~notes"], "writing~notes")
    assert leaves(after)["writing~notes"] == "ocr~notes"
    assert {(each.before, each.how, each.kept) for each in diff(BASE, after).renamed} == {
        ("ocr~notes", "moved", True),
        ("art~notes", "merged", False),
    }
    assert "art~notes" not in after.asked()


def test_branches_are_merged_by_name():
    base = version_of("a~x", "a~y", "b~y", "b~z")
    after = aliases.merge(base, ["a"], "b")
    assert leaves(after) == {"b~x": "a~x", "b~y": "b~y", "b~z": "b~z"}
    assert after.became("a~y") == "b~y"


def test_what_was_merged_away_is_not_proposed_again():
    after = aliases.merge(BASE, ["ocr~notes"], "art~notes")
    proposals = [(Expansion("level2", "ocr", (), 1), name) for name in ("Notes", "captions")]
    added, rejects = admit(
        proposals, after.nodes, lambda paths: [[1.0 * (p == q) for q in paths] for p in paths], 0.9, None
    )
    assert [node.path for node in added] == ["ocr~captions"]
    assert [(each.path, each.reason) for each in rejects] == [("ocr~notes", Reason.DUPLICATE_LABEL)]
    assert isinstance(rejects[0], LabelReject)


def test_a_name_in_another_spelling_is_not_proposed_again():
    base = TaxonomyVersion(0, None, tuple(add_types([], ["OCR~Shop Signs"])))
    added, _ = admit(
        [(Expansion("level2", "OCR", (), 1), "shop signs")], base.nodes, lambda paths: [[1.0]] * len(paths), 2, None
    )
    assert added == []


def test_a_group_whose_children_are_retired_stays_a_group():
    after = aliases.rename(BASE.retire("ocr~signs~shop signs", "ocr~signs~road signs"), "ocr~signs", "signage")
    assert "ocr~signage" not in leaves(after)


def test_a_group_whose_children_went_elsewhere_stays_a_group():
    away = aliases.merge(aliases.move(BASE, "ocr~signs~shop signs", "art"), ["ocr~signs~road signs"], "art~style")
    after = aliases.rename(away, "ocr~signs", "signage")
    assert leaves(after) == leaves(away)
    assert after.became("ocr~signs~shop signs") == "art~shop signs"


def test_pointers_stay_behind_where_others_go_on():
    after = aliases.move(aliases.rename(BASE, "ocr~notes", "jottings"), "ocr", "art")
    assert after.find("art~ocr~notes") is None
    assert after.became("ocr~notes") == "art~ocr~jottings"


def test_a_branch_of_pointers_stays_behind_as_a_whole():
    after = aliases.rename(aliases.move(BASE, "ocr~signs", "art"), "ocr", "text")
    assert [node.path for node in after.nodes if node.path.startswith("text")] == ["text", "text~notes"]
    assert after.became("ocr~signs~road signs") == "art~signs~road signs"


def test_a_pointer_keeps_its_successor_where_its_place_is_taken():
    base = version_of("a~x", "b~x", "b~y", "c~z")
    away = aliases.move(base.retire("b~x"), "a~x", "c")
    after = aliases.merge(away, ["a"], "b")
    assert after.became("a~x") == "c~x"


REFUSED = {
    "not there": (lambda: aliases.rename(BASE, "ocr~gone", "x"), "'ocr~gone' is not there"),
    "retired": (lambda: aliases.rename(BASE.retire("count"), "count", "x"), "'count' is retired"),
    "renamed before": (
        lambda: aliases.move(aliases.rename(BASE, "count", "sum"), "count", "art"),
        "'count' became 'sum'",
    ),
    "taken": (lambda: aliases.rename(BASE, "ocr~notes", "Signs"), "'ocr~signs' is there already: `taxonomy merge`"),
    "itself": (lambda: aliases.rename(BASE, "ocr~notes", "notes"), "has this path already"),
    "below itself": (lambda: aliases.move(BASE, "ocr", "ocr~signs"), "lies below 'ocr' itself"),
    "below a task type": (lambda: aliases.move(BASE, "ocr~notes", "count"), "'count' would be a group"),
    "below a new name of a task type": (
        lambda: aliases.rename(BASE, "ocr~notes", "count~x"),
        "'count' would be a group",
    ),
    "too deep": (lambda: aliases.move(version_of("a~b~c~d", "e~f"), "a", "e"), "on level 5; 4 at most"),
    "unsafe": (lambda: aliases.rename(BASE, "count", "<b>"), "cannot be a path (level 1 '<b>': holds markup)"),
    "kinds": (lambda: aliases.merge(BASE, ["ocr~signs"], "count"), "'ocr~signs' is a group and 'count' a task type"),
    "one below another": (lambda: aliases.merge(BASE, ["ocr", "ocr~signs"], "art"), "'ocr~signs' lies below another"),
    "a retired group's path": (
        lambda: aliases.rename(version_of("a~b", "c").retire("a"), "c", "a"),
        "'a' would be a group, and no task type",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(kind):
    act, why = REFUSED[kind]
    with pytest.raises(TaxonomyError) as caught:
        act()
    assert why in str(caught.value)


def test_two_task_types_are_never_asked_as_one():
    after = aliases.rename(BASE, "count", "sum")
    with pytest.raises(TaxonomyError, match=r"'count' and 'sum' are both asked as 'count'.*merge them"):
        TaxonomyVersion(2, 1, tuple(add_types(after.nodes, ["count"])))
    again = aliases.rename(BASE, "count", "sum", keep=False)
    assert leaves(TaxonomyVersion(2, 1, tuple(add_types(again.nodes, ["count"])))).keys() >= {"count", "sum"}


def test_a_node_that_was_not_renamed_has_no_new_field():
    assert all(node.asked_as is node.successor is None for node in BASE.nodes)
    assert Node("a", 1, "hand", "live") == Node("a", 1, "hand", "live", None, None, None)
    assert labels.identity("OCR ~ Notes") == "ocr~notes"
