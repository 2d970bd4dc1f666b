"""What the simulated models remember. For several threads.

In memory: the last of what was computed, by key, up to a number. In a folder, if ``keep_in`` names one: what was read
in images, which takes a second an image and reader, for the next server and for others beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from taskgalaxy_ops.hashing import fingerprint, sha256_hex

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_folder: Path | None = None


class Memory(Generic[_K, _V]):
    """A bounded memo: of more than ``most`` entries, the ones that were asked for longest ago are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K, make: Callable[[], _V]) -> _V:
        """What is known under the key, made where nothing is; of two who make it at once, the first counts."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = make()
        with self._lock:
            found = self._known.setdefault(key, made)
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def __len__(self) -> int:
        return len(self._known)


def keep_in(folder: Path | None) -> None:
    """Keep what is read from now on in this folder, and take what is there; None: keep nothing. Raises OSError."""
    global _folder
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    _folder = folder


def kept(reader: str, code: str, image: str, read: Callable[[], Any]) -> Any:
    """What the reader read in an image, as JSON's values; read where it is not kept, or not by this code.

    code: the file of the reader's code. image: the image's hash. A file that is damaged counts as not there.
    """
    if _folder is None:
        return read()
    file = _folder / f"{fingerprint('simulator.reading', [reader, _code(code), image])}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8"))
    made = read()
    part = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    with contextlib.suppress(OSError):  # it is read again then
        part.write_text(json.dumps(made), "utf-8")
        part.replace(file)
    return made


@cache
def _code(file: str) -> list[str]:
    """What decides what a reader reads: its own code, and the engine's version."""
    from importlib.metadata import version

    return [sha256_hex(Path(file).read_bytes()), version("rapidocr-onnxruntime"), version("onnxruntime")]
