"""The targets of task types: by the paths that people are shown, and higher where a model is weak."""

from __future__ import annotations

from taskgalaxy_ops.generation.targets import TargetRules
from taskgalaxy_ops.records import Node
from taskgalaxy_ops.settings import BranchTarget, TargetSettings
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.weaknesses import WeakBranch, Weaknesses

SETTINGS = TargetSettings(samples=10, tries=25, branches={"reading": BranchTarget(samples=3, tries=9)})


def test_a_branch_is_named_by_the_path_that_people_are_shown() -> None:
    nodes = (
        Node("reading", 1, "hand", "live"),
        Node("reading~signs", 2, "hand", "live", asked_as="ocr~sign reading"),
        Node("colour", 1, "hand", "live"),
    )
    rules = TargetRules(SETTINGS, TaxonomyVersion(1, 0, nodes).shown)
    assert (rules.of("ocr~sign reading").samples, rules.of("colour").samples) == (3, 10)


def test_a_weak_branch_has_a_higher_target_and_no_branch_a_lower_one() -> None:
    weak = Weaknesses("m", "s", (WeakBranch("reading", 1.5, ()), WeakBranch("colour", 0.4, ())))
    rules = TargetRules(SETTINGS, weaknesses=weak)
    found = {path: rules.of(path) for path in ("reading~signs", "colour~hues", "counting")}
    assert {path: (each.samples, each.tries) for path, each in found.items()} == {
        "reading~signs": (5, 14),
        "colour~hues": (10, 25),
        "counting": (10, 25),
    }
