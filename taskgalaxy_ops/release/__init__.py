"""Release: from rows to the files of a data set. Pure; publishing them in a store is another's.

``select_samples`` selects and splits, ``build`` makes the files one at a time. Memory is flat in the number of samples
and of images: rows lie in a temporary file (``sqlite_staging``).
"""

from taskgalaxy_ops.release.build import FORMAT_VERSION, HISTORY, MANIFEST, Stored, build, entry, file_count
from taskgalaxy_ops.release.inputs import ReleaseInputs, ShardRows, TaxonomySummary
from taskgalaxy_ops.release.redact import WITHDRAWN, withdraw
from taskgalaxy_ops.release.select import RELEASE_VERSION, Selection, select_samples
from taskgalaxy_ops.release.sqlite_staging import SPLITS

__all__ = [
    "FORMAT_VERSION",
    "HISTORY",
    "MANIFEST",
    "RELEASE_VERSION",
    "SPLITS",
    "WITHDRAWN",
    "ReleaseInputs",
    "Selection",
    "ShardRows",
    "Stored",
    "TaxonomySummary",
    "build",
    "entry",
    "file_count",
    "select_samples",
    "withdraw",
]
