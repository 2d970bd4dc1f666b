"""Pushes: to a stand-in of the Hugging Face hub over HTTP, to a folder, and to a bucket of a real S3 server."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Place
from hub_stand_in import TOKEN, HubStandIn, Repo, hub_stand_in
from releases import released
from releases import workspace as workspace_in

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import DamageError, PushError
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.progress import Silent
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.release.push import Bucket, Hub, copies, destination, hub, outgoing, push, stale
from taskgalaxy_ops.storage import connect, keys
from taskgalaxy_ops.workspace import Workspace

REPO = "acme/galaxy"
TO = f"hf://datasets/{REPO}"


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[HubStandIn]:
    with hub_stand_in() as started:
        yield started


@pytest.fixture
def hf(server: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> HubStandIn:
    """An empty hub, which the library finds by its own variables."""
    import huggingface_hub.constants as constants

    for name, value in HubStandIn(server.url).__dict__.items():
        setattr(server, name, value)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    no_wait = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.utils._http.time", no_wait)
    return server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = workspace_in(tmp_path)
    released(made, images=8)
    return made


def latest(workspace: Workspace) -> publish.Published:
    return publish.published(workspace)[-1]


def files_of(workspace: Workspace, version: int = 1) -> dict[str, bytes]:
    prefix = keys.release(version)
    store = workspace.store
    return {each.key.removeprefix(prefix): store.get(each.key) for each in store.list(prefix)}


def an_image(workspace: Workspace, version: int = 1) -> str:
    return min(Path(path).stem for path in files_of(workspace, version) if path.startswith("images/"))


def rows_of(repo: Repo) -> list[str]:
    files = repo.files().items()
    tables = [pq.read_table(io.BytesIO(raw), columns=["image_id"]) for path, raw in files if path.endswith(".parquet")]
    return [image for table in tables for image in table["image_id"].to_pylist()]


# --- the hub -----------------------------------------------------------------------------------------------------


def test_a_repository_becomes_a_private_copy_and_a_second_push_sends_nothing(
    hf: HubStandIn, workspace: Workspace
) -> None:
    receipt = push(workspace, latest(workspace), Hub(REPO))
    repo = hf.repos[REPO]
    assert (repo.private, repo.files(), len(repo.commits)) == (True, files_of(workspace), 2)
    assert (receipt.sent, receipt.files, receipt.revision) == (len(repo.files()), len(repo.files()), repo.sha)
    hf.requests.clear()
    again = push(workspace, latest(workspace), Hub(REPO))
    assert (again.sent, again.revision, len(repo.commits)) == (0, repo.sha, 2)
    assert not any("/upload/" in each or "/commit/" in each for each in hf.requests)
    [copy] = copies(workspace)
    assert (copy.to, copy.release, copy.whole, stale(workspace)) == (TO, "v000001", True, [])


def test_a_push_that_was_killed_goes_on_where_it_stopped(
    hf: HubStandIn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_BATCH_FILES", 2)
    monkeypatch.setattr(hub, "_COMMIT_FILES", 3)
    hf.stop_after = 5
    with pytest.raises(PushError, match=r"refuses this for hf://datasets/acme/galaxy .400"):
        push(workspace, latest(workspace), Hub(REPO))
    assert "README.md" not in hf.repos[REPO].files(), "the card comes last"
    assert [copy.whole for copy in copies(workspace)] == [False]
    hf.stop_after = None
    hf.requests.clear()
    before = len(hf.repos[REPO].objects)
    push(workspace, latest(workspace), Hub(REPO))
    assert hf.repos[REPO].files() == files_of(workspace)
    assert sum("/upload/" in each for each in hf.requests) == len(hf.repos[REPO].objects) - before
    assert [copy.whole for copy in copies(workspace)] == [True]


def test_a_busy_hub_is_waited_for(hf: HubStandIn, workspace: Workspace) -> None:
    hf.faults = [("/create", 503), ("/tree", 500), ("/batch", 429), ("/upload", 500), ("/commit", 429)]
    waited: list[float] = []
    push(workspace, latest(workspace), Hub(REPO, sleep=waited.append))
    assert (hf.repos[REPO].files(), hf.faults) == (files_of(workspace), [])
    assert len(waited) >= 2 and set(waited) == {7.0}, "as long as the hub asks"
    hf.faults = [("/create", 503)] * 9
    with pytest.raises(PushError, match=r"stays busy .503.. Push again later"):
        push(workspace, latest(workspace), Hub(REPO, sleep=waited.append))


def test_what_the_hub_refuses_is_told_plainly(
    hf: HubStandIn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = latest(workspace)
    with pytest.raises(PushError, match=r"may not write to hf://datasets/other/galaxy .403"):
        push(workspace, one, Hub("other/galaxy"))
    hf.repos["acme/open"] = Repo(private=False)
    with pytest.raises(PushError, match=r"everybody can read .*acme/open. Say --public"):
        push(workspace, one, Hub("acme/open"))
    assert len(hf.repos["acme/open"].commits) == 1
    push(workspace, one, Hub("acme/open", public=True))
    hf.repos["acme/else"] = Repo(private=True)
    hf.repos["acme/else"].commits.append({"notes.md": ("", b"mine")})
    with pytest.raises(PushError, match=r"holds something that is no push of this store"):
        push(workspace, one, Hub("acme/else"))
    assert hf.repos["acme/else"].files() == {"notes.md": b"mine"}
    for name, message in (("galaxy", "names no owner"), ("a/b/c", "no name of a repository"), ("", "no name")):
        with pytest.raises(PushError, match=message):
            Hub(name)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PushError, match=r"refuses the token for hf://datasets/acme/galaxy \(401\). Set HF_TOKEN"):
        push(workspace, one, Hub(REPO))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(PushError, match=r"needs a token that may write. Set HF_TOKEN"):
        Hub(REPO)


def test_what_is_withdrawn_later_is_named_and_leaves_the_repository_and_its_history(
    hf: HubStandIn, workspace: Workspace
) -> None:
    push(workspace, latest(workspace), Hub(REPO))
    gone = an_image(workspace)
    old = {oid for oid, raw in hf.repos[REPO].objects.items() if gone in repr(raw) or oid == gone}
    found = take_down(workspace, [gone])
    [copy] = found.pushed
    assert (copy.to, copy.release) == (TO, "v000001")
    push(workspace, latest(workspace), Hub(REPO))
    repo = hf.repos[REPO]
    assert (repo.files(), len(repo.commits), stale(workspace)) == (files_of(workspace), 1, [])
    assert gone not in rows_of(repo) and not old & repo.objects.keys()
    assert set(repo.objects) == {oid for oid, _ in repo.commits[0].values() if oid}
    assert take_down(workspace, [gone]).pushed == []


def test_an_earlier_release_in_the_history_is_a_copy_too(hf: HubStandIn, workspace: Workspace) -> None:
    push(workspace, latest(workspace), Hub(REPO))
    released(workspace, images=6)
    push(workspace, latest(workspace), Hub(REPO))
    first, second = publish.published(workspace)
    assert hf.repos[REPO].files() == files_of(workspace, second.version)
    both = {(copy.to, copy.version) for copy in take_down(workspace, [an_image(workspace, second.version)]).pushed}
    assert both == {(TO, first.version), (TO, second.version)}
    push(workspace, latest(workspace), Hub(REPO))
    assert [copy.version for copy in copies(workspace)] == [second.version]


def test_a_take_down_beside_a_push_reaches_the_copy(hf: HubStandIn, workspace: Workspace) -> None:
    gone = an_image(workspace)

    class Denies(Silent):
        def stage(self, name: str, total: int, unit: str) -> None:
            workspace.registry.deny([gone], "while it is pushed")

    push(workspace, latest(workspace), Hub(REPO), progress=Denies())
    assert gone not in rows_of(hf.repos[REPO]) and not any(gone in path for path in hf.repos[REPO].files())
    assert (hf.repos[REPO].files(), stale(workspace)) == (files_of(workspace), [])


def test_more_images_than_the_hub_takes_can_stay_behind(
    hf: HubStandIn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_FOLDER_FILES", 2)
    with pytest.raises(PushError, match=r"/ has 5 files, and the hub takes 2 in a folder. Push to a bucket"):
        push(workspace, latest(workspace), Hub(REPO))
    monkeypatch.setattr(hub, "_FOLDER_FILES", 99)
    push(workspace, latest(workspace), Hub(REPO), images=False)
    files = hf.repos[REPO].files()
    assert not any(path.startswith("images/") for path in files)
    assert json.loads(files["manifest.json"])["files"].keys() == files.keys() - {"manifest.json", "history.json"}
    assert stale(workspace) == []


def test_a_damaged_file_is_not_sent(hf: HubStandIn, workspace: Workspace) -> None:
    path = min(path for path in files_of(workspace) if path.startswith("data/"))
    workspace.store.replace(keys.release(1) + path, b"damaged")
    with pytest.raises(DamageError, match=r"is not what the manifest says"):
        push(workspace, latest(workspace), Hub(REPO))


# --- buckets and folders -----------------------------------------------------------------------------------------


def test_a_bucket_gets_a_whole_copy_goes_on_and_loses_what_is_withdrawn(
    place: Place, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "_AT_ONCE", 2)
    one = latest(workspace)
    to = Bucket.at(place.url, one.name, **place.options)

    class Killed(Silent):
        left = 4

        def advance(self, name: str, done: int = 1, **counts: int) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(workspace, one, to, progress=Killed())
    assert 0 < push(workspace, one, to).sent <= len(files_of(workspace)) - 1 - 4
    assert push(workspace, one, to).sent == 0
    assert whole(to, place, tmp_path / "copy") == files_of(workspace)
    gone = an_image(workspace)
    assert [copy.to for copy in take_down(workspace, [gone]).pushed] == [to.to]
    push(workspace, latest(workspace), to)
    assert whole(to, place, tmp_path / "after") == files_of(workspace)
    assert stale(workspace) == []


def whole(to: Bucket, place: Place, folder: Path) -> dict[str, bytes]:
    """What lies at a destination, checked as a release's copy."""
    store = connect(to.to, **place.options)
    files = {each.key: store.get(each.key) for each in store.list("")}
    for path, raw in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    ReleaseCopy(folder).check()
    return files


def test_a_place_of_somebody_else_is_left_alone(workspace: Workspace, tmp_path: Path) -> None:
    one = latest(workspace)
    (tmp_path / "taken" / one.name).mkdir(parents=True)
    (tmp_path / "taken" / one.name / "mine.txt").write_text("mine")
    to = destination(workspace, one, (tmp_path / "taken").as_uri())
    with pytest.raises(PushError, match=r"holds something that is no push of this store"):
        push(workspace, one, to)
    assert [file.name for file in (tmp_path / "taken" / one.name).glob("[!.]*")] == ["mine.txt"]
    with pytest.raises(PushError, match=r"lies in the store itself"):
        destination(workspace, one, f"{workspace.store.url}/copies")
    with pytest.raises(PushError, match=r"is no destination. Write hf://OWNER/NAME"):
        destination(workspace, one, "owner/name")


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_pushes_and_a_take_down_names_the_copy(
    seaweedfs: SeaweedFS, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name, value in {"ACCESS_KEY_ID": "aws_access_key_id", "SECRET_ACCESS_KEY": "aws_secret_access_key"}.items():
        monkeypatch.setenv(f"AWS_{name}", seaweedfs.s3_options[value])
    (tmp_path / "taskgalaxy.yaml").write_text(
        json.dumps(workspace.settings.model_dump(mode="json", exclude_unset=True))
    )
    shared = ["--settings", str(tmp_path / "taskgalaxy.yaml"), "--quiet"]
    to = f"s3://{seaweedfs.bucket}/pushed/{uuid.uuid4().hex}"
    endpoint = ["--endpoint", seaweedfs.s3_options["endpoint_url"]]
    assert main(["release", *shared, "push", to, *endpoint, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        **{"release": "v000001", "to": f"{to}/v000001/", "revision": ""},
        **dict.fromkeys(("files", "sent"), len(files_of(workspace))),
    }
    assert main(["release", "push", to, *endpoint, *shared]) == 0
    assert "0 of them sent now" in capsys.readouterr().out
    assert main(["release", "push", to, "--release", "v000009", *shared]) == 1
    assert "there is no release 'v000009'. There are v000001." in capsys.readouterr().err
    assert main(["takedown", an_image(workspace), "--yes", *shared]) == 0
    assert f"STILL PUSHED: {to}/v000001/ holds release v000001 of " in capsys.readouterr().out
