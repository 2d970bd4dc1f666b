"""A lease: one writer an image shard. The newest epoch of an image shard's lease log says who holds it.

A holder renews by appending the next epoch, and sends nothing past a local deadline, counted from before its last
renewal was sent, on a clock that runs on while the machine sleeps. Another may take the image shard once the newest
epoch is older than its time to live by the *store's* clock, so workers' clocks need not agree.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType

from taskgalaxy_ops.errors import LeaseLostError, NotFoundError, StoreError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store

_RENEWALS = 3  # renewals a time to live
_CLOCK_MARGIN = 2.0  # seconds: S3's times are whole seconds


def _now() -> float:
    # CLOCK_MONOTONIC stands still in Linux's sleep, not in macOS's, which has no CLOCK_BOOTTIME.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """Holds an image shard while in its ``with`` block; renews itself in a thread.

    Raises LeaseLostError from ``check`` once it may no longer be relied on, and from the constructor after ``wait``
    seconds, or once ``given_up`` says so, if another holds the image shard.
    """

    def __init__(
        self,
        store: Store,
        shard: str,
        *,
        seconds: float = 60.0,
        wait: float = 0.0,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._shard = shard
        self._prefix = keys.lease(shard)
        self._seconds = seconds
        self._nonce = uuid.uuid4().hex
        self._stop = threading.Event()
        self._epoch = 0
        self._deadline = 0.0
        self._take(wait, given_up)
        self._thread = threading.Thread(target=self._renew, name=f"lease-{shard[:8]}", daemon=True)
        self._thread.start()

    def _key(self, epoch: int) -> str:
        return f"{self._prefix}/{epoch:010d}"

    def _put(self, epoch: int, *, released: bool = False) -> bool:
        """Whether this epoch is ours, and the newest: a number that others took and swept is free to be written."""
        body = {"nonce": self._nonce, "epoch": epoch, "seconds": self._seconds, "released": released}
        if not self._store.put_if_absent(self._key(epoch), json.dumps(body, sort_keys=True).encode()):
            return False
        if self._newest() == epoch:
            return True
        self._store.delete(self._key(epoch))
        return False

    def _newest(self) -> int:
        return max((int(e.key.rpartition("/")[2]) for e in self._store.list(f"{self._prefix}/")), default=0)

    def _take(self, wait: float, given_up: Callable[[], bool]) -> None:
        last_try = _now() + wait
        while True:
            newest = self._newest()
            if newest == 0 or self._free(newest):
                sent = _now()
                if self._put(newest + 1):
                    self._epoch, self._deadline = newest + 1, sent + self._seconds
                    self._sweep(newest + 1)
                    return
            if given_up() or _now() >= last_try:
                raise LeaseLostError(
                    f"image shard {self._shard}: another worker holds it. "
                    f"Wait for that run to end, or {self._seconds:.0f} s after its death."
                )
            time.sleep(min(1.0, self._seconds / 4))

    def _free(self, epoch: int) -> bool:
        try:
            return _over(self._store, self._key(epoch))
        except NotFoundError:  # swept by a newer holder
            return False

    def _sweep(self, below: int) -> None:
        for listed in list(self._store.list(f"{self._prefix}/")):
            if int(listed.key.rpartition("/")[2]) < below:
                self._store.delete(listed.key)

    def _renew(self) -> None:
        sent: float | None = None  # of the first try: it may have been written although we were told of a failure
        while not self._stop.wait(self._seconds / _RENEWALS):
            sent = _now() if sent is None else sent
            try:
                if not self._put(self._epoch + 1):
                    return  # taken by another: the deadline passes, and check() says so
                self._epoch, self._deadline = self._epoch + 1, sent + self._seconds
                sent = None
                self._store.delete(self._key(self._epoch - 1))
            except StoreError:  # what lasts shows as a deadline that passes
                continue

    def check(self) -> None:
        """Raises LeaseLostError past the local deadline; asks the store nothing."""
        if _now() >= self._deadline:
            raise LeaseLostError(f"image shard {self._shard}: the lease ran out. Run again: what was answered is kept.")

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if _now() < self._deadline:
            self._put(self._epoch + 1, released=True)


def held(store: Store, shard: str) -> bool:
    """Whether somebody holds an image shard: its newest epoch is not released, and not older than its time to live."""
    epochs = [listed.key for listed in store.list(f"{keys.lease(shard)}/")]
    try:
        return bool(epochs) and not _over(store, max(epochs))
    except NotFoundError:  # swept by a newer holder
        return True


def _over(store: Store, key: str) -> bool:
    body = json.loads(store.get(key))
    return bool(body["released"]) or store.age(key) > body["seconds"] + _CLOCK_MARGIN
