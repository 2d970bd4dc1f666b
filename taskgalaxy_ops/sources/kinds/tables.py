"""Tables with a column of images: Parquet, and Arrow as a file or a stream (what ``datasets`` saves).

A listing reads how many rows there are, and no image. Images are read in order of rows, a few at a time, so that memory
grows neither with a table nor with its row groups.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any, ClassVar, Protocol

from taskgalaxy_ops.errors import NotFoundError, SourceError, UnreadableError
from taskgalaxy_ops.sources import context, left_out
from taskgalaxy_ops.sources.kinds import FoundImage, LeftOut, Place, SourceEntry, Unreadable
from taskgalaxy_ops.sources.kinds.columns import ColumnError, counts, holds_text, image_bytes, image_column, is_list
from taskgalaxy_ops.sources.kinds.containers import Container, Containers, place_in, split_place
from taskgalaxy_ops.text import shown

_PLACE = struct.Struct(">IQI")  # in its file: row group, row of the group, item of the row's list
ROWS_AT_A_TIME = 16  # of a table, in memory
_ROWS_A_BYTE = 8  # of a file that tells the truth, at most
_KEPT_BYTES = 32 << 20  # of batches of so many rows: several threads read, and none keeps in step
_CHANGED = "the table has changed since it was listed: scan it again"
_LONGEST = 4096  # characters of an id

OPTIONS = {
    "column": "the column of images; left out: it is found",
    "id": "a column by whose values images are called; left out: by file and row",
    **{name: f"a column with each image's {name}" for name in context.CLAIMS},
    "context": context.OPTION,
}


class Table(Protocol):
    """A file of rows."""

    schema: Any  # pyarrow's
    groups: Sequence[int]  # rows of each row group
    broken: str  # why the rest of the file cannot be read; "" if all of it can

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of a row group, in order; columns or parts of them, as ``light`` names them."""
        ...

    def light(self, group: int, column: str) -> str | None:
        """What to read of a column to see which rows have an image; None: all of the group's have."""
        ...


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a source of tables, as it is listed."""

    name: str
    version: str
    open: Callable[[], Table]


class TableSource:
    """Files of tables. A kind of them says by ``files`` which there are."""

    by_place = True
    options = OPTIONS

    def __init__(self, place: Place) -> None:
        self._source, self._location = place.source, place.location
        self._wanted = place.options.get("column")
        self._id = place.options.get("id")
        self._claims = {name: place.options[name] for name in context.CLAIMS if name in place.options}
        self._context = place.options.get("context")
        self._files: dict[str, TableFile] = {}  # by name
        self._columns: dict[str, str] = {}  # the column of images, by file
        self._window: _Window | None = None
        self._lock = threading.Lock()

    def files(self) -> Iterator[TableFile | Unreadable | LeftOut]:
        """The files in an order that is the same each time."""
        raise NotImplementedError

    def list(self) -> Iterator[SourceEntry]:
        self._files, self._columns = {}, {}
        problems: list[str] = []
        for each in self.files():
            if not isinstance(each, TableFile):
                yield each
                continue
            try:
                yield from self._rows(each)
            except _unreadable() as error:
                told = shown(getattr(error, "why", str(error)))
                problems.append(f"{each.name}: {told}")
                yield Unreadable(each.name, each.version, told)
        if not self._columns:
            why = f"\n  {problems[0]}." if problems else ""
            raise SourceError(
                f"source {self._source!r}: {self._location} holds no table of images that can be read.{why}"
            )

    def _rows(self, file: TableFile) -> Iterator[SourceEntry]:
        table = file.open()
        column = image_column(table.schema, self._wanted, partial(_first, table))
        for named in filter(None, [self._id, *self._claims.values(), *context.names(self._context or "")]):
            if named not in table.schema.names:
                raise ColumnError(f"it has no column {named!r}, which the options name")
        others = [field.name for field in table.schema if field.name != column and holds_text(field.type)]
        said_by = context.names(self._context) if self._context is not None else context.taken(None, others)
        self._files[file.name], self._columns[file.name] = file, column
        items = is_list(table.schema.field(column).type)
        before = 0
        for group, rows in enumerate(table.groups):
            held, told = self._held(table, group, column, items), self._told(table, group, said_by)
            for row, (said, images) in enumerate(zip(told, held, strict=True)):
                if not images:
                    yield LeftOut(left_out.ROW_WITHOUT)
                for item in range(images):
                    within = f"{before + row:09}/{item}" if items else f"{before + row:09}"
                    place = place_in(file.name, _PLACE.pack(group, row, item))
                    yield self._entry(file, within, said, self._own(said, said_by) | {"place": place})
            before += rows
        if table.broken:
            yield Unreadable(file.name, file.version, f"{table.broken}; {before:,} rows before it were taken")

    def _held(self, table: Table, group: int, column: str, items: bool) -> Iterator[int]:
        light = table.light(group, column)
        if light is None:
            return repeat(1, table.groups[group])
        return chain.from_iterable(counts(each.column(0), items=items) for each in table.batches(group, [light]))

    def _told(self, table: Table, group: int, said_by: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """What the other columns say that the options name, and those of the context, row by row."""
        columns = list(dict.fromkeys(filter(None, [self._id, *self._claims.values(), *said_by])))
        if not columns:
            return repeat({}, table.groups[group])
        return chain.from_iterable(each.to_pylist() for each in table.batches(group, columns))

    def _own(self, said: Mapping[str, Any], said_by: Sequence[str]) -> dict[str, Any]:
        """What a row says of its images."""
        own: dict[str, Any] = {key: value for key, by in self._claims.items() if isinstance(value := said[by], str)}
        return {**own, "context": {name: said[name] for name in said_by}}

    def _entry(
        self, file: TableFile, within: str, said: Mapping[str, Any], own: Mapping[str, Any]
    ) -> FoundImage | Unreadable:
        """within: the image's row in the file, and its item of a list. own: what is known of it beside its name."""
        if self._id is None:
            return FoundImage(name=f"{file.name}/{within}", version=file.version, **own)
        key = said[self._id]
        if not isinstance(key, str | int) or not 0 < len(str(key)) <= _LONGEST:
            why = f"its `{self._id}` is no number, and no text of at most {_LONGEST:,} characters"
            return Unreadable(f"{file.name}/{within}", file.version, why)
        _, slash, item = within.partition("/")
        version = f"{file.version}@{file.name}" if file.version else ""
        return FoundImage(name=f"{key}{slash}{item}", version=version, **own)

    def open(self, place: bytes) -> bytes:
        name, within = split_place(place, _PLACE.size)
        group, row, item = _PLACE.unpack(within)
        with self._lock:
            if not self._files:  # nothing was listed
                self._files = {each.name: each for each in self.files() if isinstance(each, TableFile)}
            if name not in self._files:
                raise UnreadableError(f"{name} is gone")
            if self._window is None or self._window.name != name:
                self._window = None  # close the one before
                file = self._files[name]
                try:
                    table = file.open()
                    if name not in self._columns:
                        self._columns[name] = image_column(table.schema, self._wanted, partial(_first, table))
                    self._window = _Window(name, table, self._columns[name])
                except _unreadable() as error:
                    raise UnreadableError(f"{file.name}: {shown(error)}") from error
            value, items = self._window.value(group, row)
        return image_bytes(value, item if items else None)

    def describe(self) -> Mapping[str, Any]:
        return {}


def _unreadable() -> tuple[type[Exception], ...]:
    import pyarrow

    return ColumnError, UnreadableError, NotFoundError, pyarrow.ArrowException, OSError, ValueError


def _first(table: Table, column: str) -> Any:
    for group in range(len(table.groups)):
        for batch in table.batches(group, [column]):
            for value in batch.column(0):
                if value.is_valid:
                    return value.as_py()
        return None  # of a first row group without a value nothing is known: the option says it
    return None


class _Window:
    """The rows of a file that are being read: the latest of one row group."""

    def __init__(self, name: str, table: Table, column: str) -> None:
        self.name = name
        self._table, self._column = table, column
        self._items = is_list(table.schema.field(column).type)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._kept: deque[tuple[int, Any]] = deque()  # first row, values
        self._next = 0
        self._why = _CHANGED  # why a row group has no further batch

    def value(self, group: int, row: int) -> tuple[Any, bool]:
        """A row's value, as pyarrow's scalar, and whether it is a list. Raises UnreadableError if the row is gone."""
        if group != self._group or (row < self._next and not any(first <= row for first, _ in self._kept)):
            if group >= len(self._table.groups):
                raise UnreadableError(_CHANGED)
            self._group, self._next, self._why = group, 0, _CHANGED
            self._kept.clear()
            self._batches = self._table.batches(group, [self._column])
        while row >= self._next:
            batch = self._following()
            if batch is None:
                raise UnreadableError(self._why)
            self._kept.append((self._next, batch.column(0)))
            self._next += batch.num_rows
            while len(self._kept) > 2 and sum(values.nbytes for _, values in self._kept) > _KEPT_BYTES:
                self._kept.popleft()
        first, values = next((first, values) for first, values in reversed(self._kept) if first <= row)
        return values[row - first], self._items

    def _following(self) -> Any:
        """The next batch; None where there is none. What follows damage is not read again for each of its rows."""
        try:
            return next(self._batches, None)
        except _unreadable() as error:
            self._why = f"the row group is damaged ({shown(error)})"
            return None


class ParquetTable:
    """A Parquet file."""

    def __init__(self, container: Container) -> None:
        from pyarrow import parquet

        self.broken = ""  # what has no footer cannot be read at all

        # Buffered, or the whole of a row group would be read ahead. A page is read whole: its writer chose its size.
        self._file = parquet.ParquetFile(_opened(container, mapped=False), pre_buffer=False, buffer_size=1 << 20)
        self.schema = self._file.schema_arrow
        self._metadata = self._file.metadata
        self._leaves = [self._metadata.schema.column(each).path for each in range(self._metadata.num_columns)]
        groups = (self._metadata.row_group(each) for each in range(self._metadata.num_row_groups))
        self.groups: Sequence[int] = [each.num_rows for each in groups]
        if min(self.groups, default=0) < 0 or sum(self.groups) > _ROWS_A_BYTE * container.size:
            raise ColumnError(f"it states {sum(self.groups):,} rows in {container.size:,} bytes")

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        yield from self._file.iter_batches(ROWS_AT_A_TIME, row_groups=[group], columns=list(columns))

    def light(self, group: int, column: str) -> str | None:
        own = [path for path in self._leaves if path == column or path.startswith(f"{column}.")]
        held = next((path for path in own if path.endswith(".bytes")), own[0])
        statistics = self._metadata.row_group(group).column(self._leaves.index(held)).statistics
        whole = statistics is not None and statistics.has_null_count and statistics.null_count == 0
        if whole and not is_list(self.schema.field(column).type):
            return None
        return next((path for path in own if path != held), column)


class ArrowTable:
    """An Arrow file or stream. Of one that is cut off, what came before is read."""

    def __init__(self, container: Container) -> None:
        import pyarrow

        self.groups: Sequence[int]
        self.broken = ""
        self._file = _opened(container, mapped=True)
        magic = self._file.read(6)
        self._file.seek(0)
        if magic == b"ARROW1":
            self._random = pyarrow.ipc.open_file(self._file)
            self.schema = self._random.schema
            self.groups = [self._random.get_batch(each).num_rows for each in range(self._random.num_record_batches)]
        else:
            self._random = None
            self._at: list[int] = []  # where each record batch begins
            self.groups = self._indexed()

    def _indexed(self) -> Sequence[int]:
        import pyarrow

        stream = pyarrow.ipc.open_stream(self._file)
        self.schema = stream.schema
        if any(pyarrow.types.is_dictionary(field.type) for field in self.schema):
            raise ColumnError("an Arrow stream with dictionaries cannot be read by its batches: write it as Parquet")
        rows: list[int] = []
        while True:
            start = self._file.tell()
            try:
                rows.append(stream.read_next_batch().num_rows)
            except StopIteration:
                return rows
            except (pyarrow.ArrowException, OSError) as error:
                self.broken = f"it is cut off or damaged ({shown(error)})"
                return rows
            self._at.append(start)

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow

        if self._random is not None:
            batch = self._random.get_batch(group)
        else:
            self._file.seek(self._at[group])
            batch = pyarrow.ipc.read_record_batch(pyarrow.ipc.read_message(self._file), self.schema)
        chosen = batch.select(list(columns))
        chosen.validate(full=True)  # a damaged file states places outside of it, and reading there ends the process
        yield chosen

    def light(self, group: int, column: str) -> str | None:  # noqa: ARG002 - as for any table
        return column


def _opened(container: Container, *, mapped: bool) -> Any:
    """A container as pyarrow's file. mapped: a local one into memory, so that only what is looked at is read."""
    import pyarrow

    if container.path is not None:
        path = str(container.path)
        return pyarrow.memory_map(path) if mapped else pyarrow.OSFile(path)
    return pyarrow.PythonFile(container.file(), mode="r")


class ContainerTables(TableSource):
    """Tables that are files of one form, in a folder or a bucket."""

    form: ClassVar[type[ParquetTable] | type[ArrowTable]]
    suffixes: ClassVar[tuple[str, ...]]

    def __init__(self, place: Place, containers: Containers | None = None) -> None:
        super().__init__(place)
        self._containers = containers or Containers(place, self.suffixes)

    def files(self) -> Iterator[TableFile | Unreadable | LeftOut]:
        for each in self._containers.list():
            if isinstance(each, Container):
                yield TableFile(each.name, each.version, partial(self.form, each))
            else:
                yield each

    def describe(self) -> Mapping[str, Any]:
        return self._containers.describe()


class ParquetSource(ContainerTables):
    """Parquet files."""

    form = ParquetTable
    suffixes = (".parquet",)


class ArrowSource(ContainerTables):
    """Arrow files and streams."""

    form = ArrowTable
    suffixes = (".arrow", ".feather")
