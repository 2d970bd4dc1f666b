"""Release: from records to the files of a data set. Pure; publishing them in a store is another's.

``plan`` selects and splits, ``build`` makes the files one at a time.
"""

from taskgalaxy_ops.release.building import FORMAT_VERSION, HISTORY, MANIFEST, build
from taskgalaxy_ops.release.material import Material, TaxonomySummary
from taskgalaxy_ops.release.planning import RELEASE_VERSION, SPLITS, Plan, plan
from taskgalaxy_ops.release.redaction import WITHDRAWN, withdraw

__all__ = [
    "FORMAT_VERSION",
    "HISTORY",
    "MANIFEST",
    "RELEASE_VERSION",
    "SPLITS",
    "WITHDRAWN",
    "Material",
    "Plan",
    "TaxonomySummary",
    "build",
    "plan",
    "withdraw",
]
