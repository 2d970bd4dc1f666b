"""A scheduler with commands like Slurm's: keeps a queue folder, runs scripts detached, forgets jobs that ended.

``fake_scheduler.py <queue> submit <name> <script> | find <name> | status <handle> | cancel <handle>``. It fails while
``<queue>/down`` exists, and hangs while ``<queue>/stuck`` exists.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(queue: Path, command: str, *arguments: str) -> int:
    with (queue / "asked.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([command, *arguments]) + "\n")
    if (queue / "stuck").exists():
        print("waiting for the controller", flush=True)
        time.sleep(60)
    if (queue / "down").exists():
        print("Unable to contact slurm controller (connect failure)", file=sys.stderr)
        return 1
    if command == "submit":
        name, script = arguments
        handle = 1 + len(list(queue.glob("*.job")))
        lock = os.open(queue / f"{handle}.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (queue / f"{handle}.out").open("wb") as out:
            process = subprocess.Popen(
                ["sh", script],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                pass_fds=[lock],
            )
        (queue / f"{handle}.job").write_text(json.dumps({"name": name, "pid": process.pid}), encoding="utf-8")
        print(f"Submitted batch job {handle}")
        return 0
    if command == "find":
        for file in sorted(queue.glob("*.job")):
            if running(queue, file.stem) and json.loads(file.read_text())["name"] == arguments[0]:
                print(file.stem)
        return 0
    if not running(queue, arguments[0]):
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    if command == "status":
        print("RUNNING")
    else:
        os.killpg(json.loads((queue / f"{arguments[0]}.job").read_text())["pid"], signal.SIGTERM)
    return 0


def running(queue: Path, handle: str) -> bool:
    try:
        with (queue / f"{handle}.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
