"""Imported by a decoding process, registers decoders with Pillow that do what no decoder should."""

import ctypes
import os
import signal
import time
from pathlib import Path

from PIL import Image, ImageFile

MAGIC = b"BAD!"


def file(does: str, number: int = 0, place: str = "") -> bytes:
    """A file whose decoder does this, one of the methods of ``Bad``; the number makes it another file."""
    return MAGIC + does.encode().ljust(12) + number.to_bytes(4, "big") + place.encode()


class Bad(ImageFile.ImageFile):
    format = "BAD"

    def _open(self) -> None:
        raw = self.fp.read()
        self.does, self.place = raw[4:16].decode().strip(), raw[20:].decode()
        self._mode, self._size = "RGB", (64, 64)
        self.tile = []

    def load(self) -> None:
        getattr(self, self.does)()

    def segfault(self) -> None:
        ctypes.string_at(8)

    def abort(self) -> None:
        os.abort()

    def leave(self) -> None:
        os._exit(7)

    def killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def spin(self) -> None:
        while True:
            pass

    def wait(self) -> None:
        """Wait until the file at ``place`` is gone, then be good; says beside it that it waits."""
        file = Path(self.place)
        if file.exists():
            file.with_suffix(f".{os.getpid()}").touch()
        while file.exists():
            time.sleep(0.01)
        self.im = Image.core.fill("RGB", self.size, (1, 2, 3))

    def sleep(self) -> None:
        time.sleep(3600)

    def deaf(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)

    def balloon(self) -> None:
        grown = []
        while True:
            grown.append(bytearray(10_000_000))


Image.register_open(Bad.format, Bad, lambda prefix: prefix.startswith(MAGIC))
