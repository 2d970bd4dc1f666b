"""A lease gives an image shard one writer at a time. The newest epoch of the shard's lease log names the holder.

The holder renews its lease by appending the next epoch. It sends nothing after a local deadline, which counts from
before the last renewal was sent, on a clock that runs on while the machine sleeps. Another worker may take the shard
once the newest epoch is older than its time to live by the *store's* clock, so workers' clocks need not agree.
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

_RENEWALS = 3  # renewals within one time to live
_CLOCK_MARGIN = 2.0  # seconds; S3 tells times in whole seconds


def _now() -> float:
    # While the machine sleeps, CLOCK_MONOTONIC stops on Linux but not on macOS, which has no CLOCK_BOOTTIME.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """Holds an image shard until its ``with`` block ends; a thread renews it.

    The constructor raises LeaseLostError if another worker still holds the shard after ``wait`` seconds, or once
    ``given_up`` says so; ``check`` raises it once the lease may have expired. ``seconds``: the time to live.
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
        """Write this epoch; True if it is ours and the newest.

        The second check is needed because a number that others used and deleted can be written again.
        """
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
        except NotFoundError:  # a newer holder deleted it
            return False

    def _sweep(self, below: int) -> None:
        for listed in list(self._store.list(f"{self._prefix}/")):
            if int(listed.key.rpartition("/")[2]) < below:
                self._store.delete(listed.key)

    def _renew(self) -> None:
        sent: float | None = None  # time of the first try: its write may have succeeded although it reported a failure
        while not self._stop.wait(self._seconds / _RENEWALS):
            sent = _now() if sent is None else sent
            try:
                if not self._put(self._epoch + 1):
                    return  # another worker took the shard: our deadline passes, and check() raises
                self._epoch, self._deadline = self._epoch + 1, sent + self._seconds
                sent = None
                self._store.delete(self._key(self._epoch - 1))
            except StoreError:  # if the failure lasts, the deadline passes
                continue

    def check(self) -> None:
        """Raises LeaseLostError after the local deadline. Does not access the store."""
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
    """Whether a worker holds an image shard: the newest epoch is not released, and not older than its time to live."""
    epochs = [listed.key for listed in store.list(f"{keys.lease(shard)}/")]
    try:
        return bool(epochs) and not _over(store, max(epochs))
    except NotFoundError:  # a newer holder deleted it
        return True


def _over(store: Store, key: str) -> bool:
    body = json.loads(store.get(key))
    return bool(body["released"]) or store.age(key) > body["seconds"] + _CLOCK_MARGIN
