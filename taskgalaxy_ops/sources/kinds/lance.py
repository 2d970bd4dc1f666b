"""Lance tables with a column of images. A table's fragments are its files: they never change, but for deleted rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.sources.kinds import LeftOut, Place, Unreadable
from taskgalaxy_ops.sources.kinds.columns import is_list
from taskgalaxy_ops.sources.kinds.tables import ROWS_AT_A_TIME, TableFile, TableSource

# What Lance calls boto3's arguments.
_S3_NAMES = {
    "endpoint_url": "aws_endpoint",
    "region_name": "aws_region",
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
}


class LanceSource(TableSource):
    """A Lance table in a folder or a bucket."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        try:
            import lance
        except ImportError as error:
            raise SourceError(
                f"source {place.source!r}: {place.location} needs the extra `lance`.\n"
                "  pip install 'taskgalaxy-ops[lance]'"
            ) from error
        try:
            self._table = lance.dataset(place.rest, storage_options=_storage_options(place.s3_options))
        except (ValueError, OSError, RuntimeError) as error:
            raise SourceError(
                f"source {place.source!r}: {place.rest} cannot be opened as a Lance table ({error})."
            ) from error

    def files(self) -> Iterator[TableFile | Unreadable | LeftOut]:
        for each in self._table.get_fragments():
            written = each.metadata
            version = fingerprint("lance fragment", [[file.path for file in written.files], str(written.deletion_file)])
            yield TableFile(f"fragment-{each.fragment_id:06}", version, partial(_Fragment, each))


class _Fragment:
    """A part of a Lance table, as one row group of the rows that are not deleted."""

    def __init__(self, fragment: Any) -> None:
        self._fragment = fragment
        self.broken = ""
        self.schema = fragment.schema
        self.groups: Sequence[int] = [fragment.count_rows()]

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:  # noqa: ARG002 - as for any table
        yield from self._fragment.to_batches(columns=list(columns), batch_size=ROWS_AT_A_TIME)

    def light(self, group: int, column: str) -> str | None:  # noqa: ARG002 - as for any table
        # Nothing lighter than the images tells which rows have none: such a row is a reject once it is read.
        return column if is_list(self.schema.field(column).type) else None


def _storage_options(s3_options: Mapping[str, Any]) -> dict[str, str]:
    named = {_S3_NAMES[name]: str(value) for name, value in s3_options.items() if name in _S3_NAMES}
    if str(s3_options.get("endpoint_url", "")).startswith("http:"):
        named["allow_http"] = "true"
    return named
