"""What tasks need is loaded before they fork, and works in the forks."""

from __future__ import annotations

import subprocess
import sys

FORKED = """
import io, multiprocessing, sys, threading
from taskgalaxy_ops.operations.airflow.preload import preload

def work():
    before = set(sys.modules)
    import pandas, pyarrow as pa, pyarrow.parquet as pq
    from taskgalaxy_ops.models import http
    from taskgalaxy_ops.storage import connect
    connect("s3://bucket/there", endpoint_url="http://127.0.0.1:1")
    http.certificates()
    written = io.BytesIO()
    pq.write_table(pa.table({"n": range(1000)}), written)
    assert pandas.read_parquet(written)["n"].sum() == 499500
    assert not {"pandas", "boto3", "pyarrow.dataset"} & (set(sys.modules) - before), "it was there"

preload()
assert threading.active_count() == 1
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(60)
sys.exit(1 if child.is_alive() else child.exitcode)
"""


def test_a_fork_uses_what_was_loaded_before_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
