"""Temporary files for a release's large files: in memory while they are small, then on disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from taskgalaxy_ops.errors import StoreError

_IN_MEMORY = 4 << 20  # bytes: a small release needs no disk
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.ENOENT}  # ENOENT: no temporary folder can be written to


@contextmanager
def spooled() -> Iterator[BinaryIO]:
    """Yield a private file that is deleted at the end of the block. Raises StoreError where the disk is full.

    Use ``write``: ``writelines`` looks whether the file is small only after its last line.
    """
    try:
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            yield cast(BinaryIO, file)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreError(
            f"a file of the release cannot be written out ({error}). Free space where temporary files lie, or name a "
            "folder with room for them by TMPDIR."
        ) from error
