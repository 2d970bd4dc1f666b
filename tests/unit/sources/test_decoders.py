"""A decoder that crashes, hangs or balloons costs one file; processes end with whoever started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import bad_decoders
import numpy as np
import psutil
import pytest
from PIL import Image as Pillow
from zoo import encoded, picture

from taskgalaxy_ops.errors import SourceError, StoreError
from taskgalaxy_ops.records import FileReject, Image, Reason
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources import checking, decoders
from taskgalaxy_ops.sources.checking import scan
from taskgalaxy_ops.sources.decoders import ClosedError, Decoders
from taskgalaxy_ops.sources.listing import SourceFile
from taskgalaxy_ops.storage.scan_staging import ScanStaging

SETTINGS = IngestSettings(workers=2, seconds_an_image=1, megabytes_an_image=200)
LONGEST = 60  # seconds until something is taken to hang

OUTCOMES = {
    "segfault": (Reason.DECODER_CRASHES, "twice its decoder crashed (Segmentation fault)"),
    "abort": (Reason.DECODER_CRASHES, "twice its decoder crashed (Aborted)"),
    "leave": (Reason.DECODER_CRASHES, "twice its decoder ended with exit status 7"),
    "killed": (Reason.DECODER_CRASHES, "twice its decoder was killed, by the system for want of memory or by somebody"),
    "spin": (Reason.TOO_SLOW, "not decoded in 1 s (ingest.seconds_an_image)"),
    "deaf": (Reason.TOO_SLOW, "not decoded in 1 s (ingest.seconds_an_image)"),
    "balloon": (Reason.TOO_MUCH_MEMORY, "its decoder wants more than 200 MB (ingest.megabytes_an_image)"),
}


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding processes have the bad decoders."""
    monkeypatch.setattr(checking, "Decoders", partial(Decoders, preload=["bad_decoders"]))


def eventually(what: Callable[[], object]) -> bool:
    """Whether something becomes true."""
    until = time.monotonic() + LONGEST
    while not (true := bool(what())) and time.monotonic() < until:
        time.sleep(0.02)
    return true


def children() -> list[psutil.Process]:
    """The decoding processes below this one that run, the first one before its workers."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended, and perhaps nobody waited for it yet
            if "decoder_process" in str(each.cmdline()):
                found.append(each)
    return found


@pytest.fixture(autouse=True)
def _no_spares() -> None:
    """A first process that an earlier test left may end by itself in the middle of this one."""
    decoders._close_spares()


def result(files: list[SourceFile], settings: IngestSettings = SETTINGS) -> tuple[dict[str, str], list[FileReject]]:
    """The images of a scan by file, and its rejects."""
    with ScanStaging("mine") as staged:
        scan(files, staged, (), (), settings, lambda image, raw: None)
        claims = {claim.file: claim.image for _, found in staged.claims_by_shard(lambda image: "1") for claim in found}
        return dict(sorted(claims.items())), list(staged.file_rejects())


def source(files: dict[str, bytes]) -> list[SourceFile]:
    return [SourceFile(name=name, read=partial(bytes, raw)) for name, raw in files.items()]


def test_a_decoder_that_crashes_hangs_or_balloons_costs_one_file(bad: None) -> None:
    files = {}
    for number, does in enumerate(OUTCOMES):
        files[f"{number} {does}"] = bad_decoders.file(does)
        files[f"{number} good"] = encoded(picture(seed=number), "PNG")
    claims, rejects = result(source(files))
    assert list(claims) == [name for name in files if "good" in name]
    assert [(each.file.partition(" ")[2], each.reason, each.detail) for each in rejects] == [
        (does, *told) for does, told in OUTCOMES.items()
    ]
    assert not any(each.children() for each in children()), "only the first process is kept"


def test_files_that_are_whole_and_cost_too_much() -> None:
    """Without any bad decoder: a large picture, and a progressive JPEG that repeats a scan over a large picture."""
    large = encoded(Pillow.new("RGB", (4000, 4000)), "PNG")
    claims, rejects = result(source({"large": large}), IngestSettings(megabytes_an_image=100))
    assert (claims, [each.reason for each in rejects]) == ({}, [Reason.TOO_MUCH_MEMORY])
    assert result(source({"large": large}), IngestSettings())[1] == []

    raw = encoded(Pillow.new("L", (4000, 4000), 77), "JPEG", progressive=True)
    last = raw.rindex(b"\xff\xda")
    raw = raw[:last] + raw[last:-2] * 3000 + raw[-2:]
    _, rejects = result(source({"scans": raw}), IngestSettings(workers=1, seconds_an_image=1))
    assert [each.reason for each in rejects] == [Reason.TOO_SLOW]


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """While this file is there, the decoder of ``bad_decoders.file("wait", place=…)`` waits; then its image is good."""
    file = tmp_path / "wait"
    file.touch()
    return file


@pytest.mark.parametrize("whom", ["worker", "first process"])
def test_a_process_that_somebody_kills_costs_nothing(bad: None, waiting: Path, whom: str) -> None:
    settings = IngestSettings(workers=2, seconds_an_image=LONGEST)
    a, c = (bad_decoders.file("wait", number, str(waiting)) for number in (0, 1))
    files = {"a": a, "b": encoded(picture(), "PNG"), "c": c}
    found = []
    thread = threading.Thread(target=lambda: found.append(result(source(files), settings)))
    thread.start()
    assert eventually(lambda: len(list(waiting.parent.glob("wait.*"))) == 2), "two workers wait"
    [(first, workers)] = [(each, below) for each in children() if (below := each.children())]
    victim = workers[0] if whom == "worker" else first
    victim.kill()
    assert eventually(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    waiting.unlink()
    thread.join(LONGEST)
    [(claims, rejects)] = found
    assert (list(claims), rejects) == (["a", "b", "c"], [])


# In the background of a shell SIGINT is ignored, and what is started there inherits that.
_SCRIPT = """
import signal
import sys
from functools import partial
from bad_decoders import file
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources import checking
from taskgalaxy_ops.sources.decoders import Decoders
from taskgalaxy_ops.sources.listing import SourceFile
from taskgalaxy_ops.storage.scan_staging import ScanStaging

signal.signal(signal.SIGINT, signal.default_int_handler)
checking.Decoders = partial(Decoders, preload=["bad_decoders"])
files = [SourceFile(name=str(number), read=partial(file, "deaf", number)) for number in range(20)]
with ScanStaging("mine") as staged:
    checking.scan(files, staged, (), (), IngestSettings(workers=2), lambda image, raw: None)
"""


@pytest.fixture
def scanning() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose decoders hang, in a group of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT], env=environment, start_new_session=True, stderr=subprocess.PIPE
    )
    assert eventually(lambda: len(children()) == 3), "the first process and two workers"
    yield process
    process.kill()
    process.communicate()


def test_decoding_processes_end_with_the_one_that_started_them(scanning: subprocess.Popen[bytes]) -> None:
    below = psutil.Process(scanning.pid).children(recursive=True)
    scanning.kill()
    scanning.wait()
    _, alive = psutil.wait_procs(below, LONGEST)
    assert alive == []


def test_an_interrupted_scan_ends_at_once(scanning: subprocess.Popen[bytes]) -> None:
    """As by Ctrl-C, which the terminal sends to the whole group; the image may take a minute more."""
    below = psutil.Process(scanning.pid).children(recursive=True)
    os.killpg(scanning.pid, signal.SIGINT)
    _, told = scanning.communicate(timeout=LONGEST / 2)
    assert told.decode().rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(below, LONGEST)
    assert alive == []


def _scan_in_a_daemon(out: Path) -> None:
    claims, rejects = result(source({"a": encoded(picture(), "JPEG"), "b": b"broken"}))
    out.write_text(f"{list(claims)} {[str(each.reason) for each in rejects]}")


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_daemon_may_scan(tmp_path: Path, method: str) -> None:
    """Celery's workers are daemons of multiprocessing, which may not have children of multiprocessing's."""
    process = multiprocessing.get_context(method).Process(
        target=_scan_in_a_daemon, args=(tmp_path / "found",), daemon=True
    )
    process.start()
    process.join(LONGEST)
    assert (tmp_path / "found").read_text() == "['a'] ['not an image']"


def test_processes_that_do_not_start_are_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "Decoders", partial(Decoders, preload=["no_such_module"]))
    with pytest.raises(SourceError, match="images cannot be decoded: their process does not start"):
        result(source({"a": encoded(picture(), "PNG")}))
    assert "No module named 'no_such_module'" in capfd.readouterr().err


def test_nothing_is_started_where_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(decoders, "_First", start)
    files = [SourceFile(name=name, version="1", read=lambda: pytest.fail("it was read")) for name in "ab"]
    with ScanStaging("mine") as staged:
        staged.remember([], [])
        staged._db.executemany("INSERT INTO before (file, version, image) VALUES (?, '1', ?)", [("a", "A"), ("b", "B")])
        scan(files, staged, {"A", "B"}, (), SETTINGS, lambda image, raw: None)
        assert (staged.claims, staged.images) == (2, 0)


def test_the_first_process_is_kept_for_the_next_scan_and_not_for_a_forked_child() -> None:
    decoders._close_spares()
    files = source({"a": encoded(picture(), "PNG")})
    result(files)
    [first] = children()
    result(files)
    assert children() == [first]
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            code = int(bool(decoders._spares) or result(files)[1] != [])
            decoders._close_spares()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    result(files)
    assert children() == [first]
    first.kill()
    first.wait()
    assert result(files)[1] == [], "another one takes its place"


def test_a_first_process_without_workers_ends_after_a_while() -> None:
    decoders._close_spares()
    raw = encoded(picture(), "PNG")
    for _ in range(2):
        with Decoders(SETTINGS, ["impatient_decoders"]) as pool:
            assert isinstance(pool.inspect(raw).image, Image)
        assert eventually(lambda: not children())


def test_who_waits_when_the_decoders_are_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, found = Decoders(IngestSettings(workers=1), ["bad_decoders"]), []

    def ask() -> None:
        try:
            found.append(pool.inspect(bad_decoders.file("sleep")))
        except ClosedError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert eventually(lambda: any(each.children() for each in children()))
    pool.__exit__(None, None, None)
    thread.join(LONGEST)
    assert [type(each) for each in found] == [ClosedError]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_do_not_depend_on_how_many_decode(bad: None, workers: int) -> None:
    """Duplicates name the first file by name, however quickly another one was decoded."""
    slow, quick = encoded(picture(1500, 1500), "PNG"), encoded(picture(40, 40), "PNG")
    files = {f"{number:03}": [slow, quick, b"broken", quick, slow][number % 5] for number in range(100)}
    files["000"] = encoded(picture(2000, 1500, seed=4), "PNG")
    files["050"] = bad_decoders.file("segfault")
    ticks: list[bool] = []
    with ScanStaging("mine") as staged:
        settings = IngestSettings(workers=workers)
        scan(source(files), staged, (), (), settings, lambda image, raw: None, ticks.append)
        claims = sorted(claim.file for _, found in staged.claims_by_shard(lambda image: "1") for claim in found)
        rejects = {each.file: (each.reason, each.detail) for each in staged.file_rejects()}
    assert claims == ["000", "001", "004"]
    assert rejects["003"] == rejects["098"] == (Reason.DUPLICATE_FILE, "of 001")
    assert rejects["005"] == rejects["099"] == (Reason.DUPLICATE_FILE, "of 004")
    assert rejects["002"] == rejects["097"] == (Reason.NOT_AN_IMAGE, "no known image format")
    assert rejects["050"][0] == Reason.DECODER_CRASHES
    assert len(rejects) == 97 and ticks == [name in rejects for name in files]


def test_the_bytes_that_are_read_ahead_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    size, room = 1_000_000, 3_000_000
    monkeypatch.setattr(checking, "_BYTES_AHEAD", room)
    lock, held, most = threading.Lock(), [0], [0]

    class Pool(Decoders):
        def inspect(self, raw: bytes) -> decoders.Decoded:
            time.sleep(0.005)  # slower than reading, so that readers are ahead
            with lock:
                held[0] -= len(raw)
            return decoders.Decoded((Reason.NOT_AN_IMAGE, "?"))

    def read(number: int) -> bytes:
        raw = number.to_bytes(4, "big") * (size // 4)
        with lock:
            held[0] += len(raw)
            if number > 40:  # before, no file's size is known
                most[0] = max(most[0], held[0])
        return raw

    monkeypatch.setattr(checking, "Decoders", Pool)
    files = [SourceFile(name=f"{number:03}", read=partial(read, number)) for number in range(200)]
    _, rejects = result(files, IngestSettings(workers=4))
    assert len(rejects) == 200
    assert 2 * size <= most[0] <= room


def test_a_source_that_cannot_be_read_any_more_ends_the_scan() -> None:
    def gone() -> bytes:
        raise StoreError("out of reach")

    files = source({f"{number:02}": encoded(picture(seed=number), "PNG") for number in range(20)})
    files[5] = SourceFile(name="05", read=gone)
    seen: list[bool] = []
    with ScanStaging("mine") as staged, pytest.raises(StoreError, match="out of reach"):
        scan(files, staged, (), (), SETTINGS, lambda image, raw: None, seen.append)
    assert seen == [False] * 5
    assert not any(each.children() for each in children()), "only the first process is kept"


def test_a_file_that_passed_in_a_decoding_process_is_as_it_would_be_here() -> None:
    from taskgalaxy_ops.sources.inspecting import inspect

    raw = encoded(Pillow.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)), "JPEG")
    with Decoders(SETTINGS) as pool:
        found = pool.inspect(raw)
        assert isinstance(found.image, Image) and found.image == inspect(raw, SETTINGS)
        tiff = encoded(picture(), "TIFF", save_all=True, append_images=[picture()])
        assert pool.inspect(tiff).pages == pool.pages(tiff) == 2
