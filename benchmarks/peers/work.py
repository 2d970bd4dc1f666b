"""The work that every peer does, and the report of what it took. Standard library only, because peers' venvs import it.

One request for each image of a folder, with the unchanged bytes of the file and an instruction; the structured reply is
a question with its answer. A script's arguments are ``base_url folder count in_flight``; its last line is a JSON
object.
"""

from __future__ import annotations

import base64
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "teacher"
MAX_TOKENS = 512
INSTRUCTION = (
    "Write a question about this image that can be answered by looking at it, and its answer. Ask about something "
    "that is plainly visible, and answer in one short sentence. Reply with a JSON object and nothing else."
)
FIELDS = ("question", "answer")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {field: {"type": "string"} for field in FIELDS},
    "required": list(FIELDS),
    "additionalProperties": False,
}
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "pair", "strict": True, "schema": SCHEMA},
}


@dataclass(frozen=True, slots=True)
class Work:
    """A script's arguments."""

    base_url: str
    folder: Path
    count: int
    in_flight: int

    def images(self) -> list[Path]:
        """One file a request. Raises ValueError for a folder that has fewer."""
        files = sorted(self.folder.rglob("*.jpg"))
        if len(files) < self.count:
            raise ValueError(f"{self.folder} holds {len(files)} .jpg files: {self.count} requests want one each.")
        return files[: self.count]


def encoded(image: Path | str) -> str:
    """The file's bytes as base64."""
    return base64.b64encode(Path(image).read_bytes()).decode("ascii")


def content(image: Path) -> list[dict[str, Any]]:
    """The content of the request's message."""
    url = f"data:image/jpeg;base64,{encoded(image)}"
    return [{"type": "text", "text": INSTRUCTION}, {"type": "image_url", "image_url": {"url": url}}]


def is_record(found: object) -> bool:
    """Whether a parsed reply fulfils the schema."""
    return isinstance(found, dict) and all(isinstance(found.get(field), str) for field in FIELDS)


def is_reply(text: str | None) -> bool:
    """Whether a reply's text is JSON that fulfils the schema."""
    try:
        return is_record(json.loads(text or ""))
    except ValueError:
        return False


def _cpu() -> float:
    """Processor seconds so far, of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_memory() -> int:
    """The peak memory of this process so far, in bytes (Linux)."""
    # Not getrusage's maximum, which is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(run: Callable[[Work], int]) -> None:
    """Do the work, and print what it took: processor seconds of this process and its children, and wall seconds.

    run: does the work, and returns the number of records obtained. ``start_cpu`` is the start-up: all imports."""
    base_url, folder, count, in_flight = sys.argv[1:]
    work = Work(base_url, Path(folder), int(count), int(in_flight))
    start, clock = _cpu(), time.monotonic()
    records = run(work)
    report = {
        "records": records,
        "lost": work.count - records,
        "start_cpu": start,
        "cpu": _cpu() - start,
        "seconds": time.monotonic() - clock,
        "peak": peak_memory(),
    }
    print(json.dumps(report), flush=True)
