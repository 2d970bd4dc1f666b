"""The taxonomy: seeds, the rules of labels, how a version grows, and the difference of two versions.

What is exported here is pure; `expand` and `store` use a store and models.
"""

from taskgalaxy_ops.taxonomy.growth import Expansion, admit, children, expansions
from taskgalaxy_ops.taxonomy.labels import ancestors, check, check_path, label_text, normalise, normalise_path
from taskgalaxy_ops.taxonomy.seeds import SEEDS_FILE, add_types, load_seeds
from taskgalaxy_ops.taxonomy.version import Diff, Renamed, TaxonomyVersion, diff, live_leaves, tree

__all__ = [
    "SEEDS_FILE",
    "Diff",
    "Expansion",
    "Renamed",
    "TaxonomyVersion",
    "add_types",
    "admit",
    "ancestors",
    "check",
    "check_path",
    "children",
    "diff",
    "expansions",
    "label_text",
    "live_leaves",
    "load_seeds",
    "normalise",
    "normalise_path",
    "tree",
]
