"""Release: from rows to the files of a data set. Only ``publish``, ``push``, ``changes``, ``reviewed``
and ``published_rows`` use a store.

``select_samples`` chooses and splits the samples, ``build`` makes the files one at a time. Memory does not grow with
the number of samples and images, because the rows lie in a temporary file (``sqlite_staging``).
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
