"""Jobs in a cluster: valid manifests, and the real client against a small API server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_cluster import TOKEN, FakeCluster

from taskgalaxy_ops.errors import JobError, SettingsError
from taskgalaxy_ops.finetune.backends import kubernetes as module
from taskgalaxy_ops.finetune.backends.kubernetes import MANIFEST, KubernetesBackend
from taskgalaxy_ops.finetune.jobs import Job, State, folder_of
from taskgalaxy_ops.finetune.recipes import load_recipe, shipped
from taskgalaxy_ops.settings import KubernetesSettings

client = pytest.importorskip("kubernetes.client")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

KEY = "0123456789abcdef" * 4
IMAGE = f"registry.example/trainer@sha256:{'a' * 64}"
PLUGINS = Path(__file__).parents[3] / "plugins"


def settings(**changes: Any) -> KubernetesSettings:
    return KubernetesSettings.model_validate({"namespace": "training", "image": IMAGE, "claim": "galaxy", **changes})


def job(root: Path, recipe: str = "tiny", release: str | None = "v1 – “straße”") -> Job:
    return Job(
        key=KEY,
        recipe=load_recipe(recipe),
        trainer="trl",
        release=release,
        folder=folder_of(root, KEY),
        command=("true",),
        files={},
    )


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    made = FakeCluster()
    try:
        yield made
    finally:
        made.stop()


def api(url: str) -> Any:
    configuration = client.Configuration(host=url, api_key={"authorization": TOKEN})
    configuration.retries = False
    return client.BatchV1Api(client.ApiClient(configuration))


@pytest.fixture
def backend(cluster: FakeCluster) -> KubernetesBackend:
    return KubernetesBackend(settings(), api(cluster.url))


@pytest.fixture
def made(tmp_path: Path, backend: KubernetesBackend) -> Job:
    rendered = backend.render(job(tmp_path))
    rendered.write()
    return rendered


@pytest.mark.parametrize("recipe", shipped())
@pytest.mark.parametrize("more", [{}, {"node_selector": {"gpu": "h100"}, "service_account": "trainer"}])
def test_every_recipes_manifest_is_valid(recipe: str, more: dict[str, Any], tmp_path: Path) -> None:
    rendered = KubernetesBackend(settings(**more)).render(job(tmp_path / "fine tune", recipe))
    manifest = yaml.safe_load(rendered.files[MANIFEST])
    kubernetes_validate.validate(manifest, "1.37", strict=True)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {
        "cpu": "16",
        "memory": "128Gi",
        "nvidia.com/gpu": str(load_recipe(recipe).devices),
    }
    with pytest.raises(kubernetes_validate.ValidationError):  # the schema is strict enough to notice
        kubernetes_validate.validate({**manifest, "specs": {}}, "1.37", strict=True)


def test_a_manifest_says_all_that_it_must(tmp_path: Path) -> None:
    made = job(tmp_path)
    manifest = KubernetesBackend(settings(node_selector={"gpu": "h100"}, service_account="trainer")).manifest(made)
    assert manifest["metadata"]["name"] == made.name == "taskgalaxy-0123456789abcdef"
    assert manifest["metadata"]["namespace"] == "training"
    assert manifest["metadata"]["annotations"] == {
        "taskgalaxy/key": KEY,
        "taskgalaxy/recipe": "tiny",
        "taskgalaxy/release": "v1 – “straße”",
    }
    assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())
    assert manifest["metadata"]["labels"]["taskgalaxy/key"] == KEY[:63]
    spec, pod = manifest["spec"], manifest["spec"]["template"]["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"], pod["restartPolicy"]) == (0, 604800, "Never")
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (pod["nodeSelector"], pod["serviceAccountName"]) == ({"gpu": "h100"}, "trainer")
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["command"] == ["sh", str(made.folder / "run.sh")]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"finetune": str(tmp_path), "memory": "/dev/shm"}
    assert made.folder.is_relative_to(mounts["finetune"])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["finetune"]["persistentVolumeClaim"] == {"claimName": "galaxy"}
    assert volumes["memory"]["emptyDir"] == {"medium": "Memory"}


def test_a_folder_that_no_container_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no path with a colon"):
        KubernetesBackend(settings()).render(job(tmp_path / "a:b"))


def test_a_job_runs_and_succeeds(backend: KubernetesBackend, cluster: FakeCluster, made: Job) -> None:
    assert backend.state(made, None) is State.UNKNOWN
    assert backend.find(made) is None
    handle = backend.submit(made)
    assert handle == backend.find(made) == made.name
    assert cluster.requests[-2][2] == yaml.safe_load(made.files[MANIFEST])  # what lies in the folder is what runs
    assert backend.state(made, handle) is State.RUNNING  # it has no status yet
    cluster.set(made.name)
    assert backend.state(made, handle) is State.RUNNING
    cluster.set(made.name, "SuccessCriteriaMet")  # its pods have not ended
    assert backend.state(made, handle) is State.RUNNING
    cluster.set(made.name, "Complete")
    assert backend.state(made, handle) is State.SUCCEEDED
    assert backend.submit(made) == handle
    backend.cancel(made, handle)  # not an error, and it succeeded all the same
    assert backend.state(made, handle) is State.SUCCEEDED


def created(cluster: FakeCluster) -> int:
    return sum(method == "POST" for method, _, _ in cluster.requests)


def test_a_job_that_failed_is_replaced(backend: KubernetesBackend, cluster: FakeCluster, made: Job) -> None:
    backend.submit(made)
    cluster.set(made.name, "Failed")
    assert backend.state(made, None) is State.FAILED
    first = cluster.jobs[made.name]["metadata"]["uid"]
    cluster.slow_deletion = True
    timer = threading.Timer(0.5, cluster.end_deletions)
    timer.start()
    backend.submit(made)
    timer.join()
    assert cluster.jobs[made.name]["metadata"]["uid"] != first
    assert backend.state(made, None) is State.RUNNING


def test_one_that_does_not_go(
    backend: KubernetesBackend, cluster: FakeCluster, made: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GONE", 0.5)
    backend.submit(made)
    cluster.set(made.name, "Failed")
    cluster.slow_deletion = True
    with pytest.raises(JobError, match="does not go"):
        backend.submit(made)


def test_submitted_by_many_it_is_created_once(cluster: FakeCluster, made: Job) -> None:
    handles: list[str] = []
    racers = [
        threading.Thread(target=lambda: handles.append(KubernetesBackend(settings(), api(cluster.url)).submit(made)))
        for _ in range(8)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert handles == [made.name] * 8
    assert len(cluster.jobs) == 1


def test_409_is_found(
    backend: KubernetesBackend, cluster: FakeCluster, made: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and creating, another was quicker."""
    backend.submit(made)
    read, looked = backend._read, []

    def late(asked: Job) -> Any:
        looked.append(asked)
        return None if len(looked) == 1 else read(asked)

    monkeypatch.setattr(backend, "_read", late)
    assert backend.submit(made) == made.name
    assert created(cluster) == 2
    assert len(cluster.jobs) == 1


def test_cancelling_deletes_it_with_its_pods(backend: KubernetesBackend, cluster: FakeCluster, made: Job) -> None:
    backend.submit(made)
    cluster.set(made.name)
    cluster.slow_deletion = True
    backend.cancel(made, made.name)
    method, path, options = cluster.requests[-1]
    assert (method, path.rpartition("/")[2]) == ("DELETE", made.name)
    assert options["propagationPolicy"] == "Foreground"
    assert backend.state(made, None) is State.RUNNING  # its pods end
    cluster.end_deletions()
    assert backend.state(made, None) is State.CANCELLED
    backend.cancel(made, None)  # not an error
    backend.submit(made)
    assert backend.state(made, None) is State.RUNNING


@pytest.mark.parametrize(("code", "expected"), [(0, State.SUCCEEDED), (9, State.FAILED), (None, State.UNKNOWN)])
def test_a_job_that_the_cluster_has_forgotten(
    code: int | None, expected: State, backend: KubernetesBackend, cluster: FakeCluster, made: Job
) -> None:
    backend.submit(made)
    cluster.jobs.clear()
    if code is not None:
        (made.folder / "exit.json").write_text(json.dumps({"code": code}))
    assert backend.state(made, made.name) is expected


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        (
            (403, "jobs.batch is forbidden"),
            r"answered 403 .* to read: jobs.batch is forbidden. Its account must create",
        ),
        ((401, "expired"), "answered 401 .*expired. Renew its credentials"),
        ((500, "etcd is gone"), "answered 500 .*etcd is gone"),
    ],
)
def test_a_cluster_that_refuses(
    refuses: tuple[int, str], message: str, backend: KubernetesBackend, cluster: FakeCluster, made: Job
) -> None:
    cluster.refuses = refuses
    for act in (backend.submit, backend.find):
        with pytest.raises(JobError, match=rf"{made.name}: namespace training: .*{message}"):
            act(made)
    for ask in (backend.state, backend.cancel):
        with pytest.raises(JobError, match=message):
            ask(made, made.name)


def test_what_cannot_be_cancelled_is_not_called_cancelled(
    backend: KubernetesBackend, cluster: FakeCluster, made: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.submit(made)

    def broken(*_: object, **more: object) -> None:
        raise client.ApiException(status=500, reason="Internal")

    monkeypatch.setattr(backend._api, "delete_namespaced_job", broken)
    with pytest.raises(JobError, match="answered 500 Internal to delete"):
        backend.cancel(made, None)
    cluster.jobs.clear()
    assert backend.state(made, None) is State.UNKNOWN


def test_a_manifest_that_the_cluster_does_not_take(cluster: FakeCluster, made: Job) -> None:
    wrong = settings().model_copy(update={"claim": 5})
    with pytest.raises(JobError, match=r"answered 422 .* to create: 5 is not of type"):
        KubernetesBackend(wrong, api(cluster.url)).submit(made)


def test_a_cluster_that_is_not_there(made: Job) -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{opened.getsockname()[1]}"
    with pytest.raises(JobError, match=r"cannot be asked to read .* Is it reached from here"):
        KubernetesBackend(settings(), api(url)).state(made, None)


def test_the_kubeconfig_is_read(
    cluster: FakeCluster, made: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import kube_config

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(JobError, match=r"no cluster is known .* Airflow connection kubernetes_default"):
        KubernetesBackend(settings()).find(made)
    (tmp_path / "config").write_text(yaml.safe_dump(cluster.kubeconfig()))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    assert KubernetesBackend(settings()).submit(made) == made.name
    assert list(cluster.jobs) == [made.name]


def test_through_an_airflow_connection(cluster: FakeCluster, made: Job, tmp_path: Path) -> None:
    pytest.importorskip("airflow.providers.cncf.kubernetes")
    connection = {"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(cluster.kubeconfig())}}
    program = (
        "import sys\n"
        "from galaxy_airflow.kubernetes import batch_api\n"
        "api = batch_api('our_cluster')\n"
        "print([job.metadata.name for job in [api.read_namespaced_job(sys.argv[1], 'training')]])\n"
    )
    KubernetesBackend(settings(), api(cluster.url)).submit(made)
    environment = {
        **os.environ,
        "PYTHONPATH": str(PLUGINS),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_OUR_CLUSTER": json.dumps(connection),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, made.name], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith(f"['{made.name}']")
