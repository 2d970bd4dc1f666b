"""A job as a Kubernetes Job, which the cluster knows by a name that carries the key.

Its manifest is rendered with the job's other files. The volume claim is mounted where ``finetune.folder`` lies, so that
every path in those files holds in the container. Trainers that run in a clone (``LLAVA_HOME``) find it in the image.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from taskgalaxy_ops.errors import JobError, SchedulerError, SettingsError
from taskgalaxy_ops.finetune.jobs import CANCELLED, EXIT, SCRIPT, Job, State, exit_state
from taskgalaxy_ops.settings import KubernetesSettings

MANIFEST = "job.kubernetes.yaml"
_KEPT = 7 * 24 * 3600  # seconds, that an ended Job may be looked at in the cluster
_SECONDS = 30.0  # of one request
_GONE = 90.0  # seconds, until a failed Job that is replaced has left: its pods have 30 to end
_GONE_STEP = 0.2


class KubernetesBackend:
    """A cluster's batch API.

    api: a ``kubernetes.client.BatchV1Api``; None: made from the pod's own account, or else from the kubeconfig.
    """

    name = "kubernetes"

    def __init__(self, settings: KubernetesSettings, api: Any = None) -> None:
        self._settings, self._api = settings, api

    def render(self, job: Job) -> Job:
        """The job with its manifest. Raises SettingsError for a folder that no container can be given."""
        return replace(job, files={**job.files, MANIFEST: yaml.safe_dump(self.manifest(job), sort_keys=False).encode()})

    def manifest(self, job: Job) -> dict[str, Any]:
        """A batch/v1 Job that runs the job's script once."""
        settings, root = self._settings, str(job.folder.parent.parent)
        if ":" in root:
            raise SettingsError(f"finetune.folder {root!r}: Kubernetes mounts no path with a colon. Rename it.")
        size = {
            "cpu": str(settings.cpus),
            "memory": f"{settings.memory_gib}Gi",
            "nvidia.com/gpu": str(job.recipe.devices),
        }
        labels = {
            "app.kubernetes.io/name": "taskgalaxy",
            "app.kubernetes.io/component": "finetune",
            "taskgalaxy/key": job.key[:63],  # no label is longer; the annotation is whole
        }
        annotations = {"taskgalaxy/key": job.key, "taskgalaxy/recipe": job.recipe.name}
        if job.release:
            annotations["taskgalaxy/release"] = job.release
        container = {
            "name": "trainer",
            "image": settings.image,
            "command": ["sh", str(job.folder / SCRIPT)],
            "env": [
                {"name": "HOME", "value": "/tmp"},  # the image's user may have none that it can write to
                {"name": "HF_HOME", "value": f"{root}/cache/huggingface"},  # weights are fetched once, not by each job
            ],
            "resources": {"limits": size, "requests": dict(size)},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "finetune", "mountPath": root}, {"name": "memory", "mountPath": "/dev/shm"}],
        }
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [
                {"name": "finetune", "persistentVolumeClaim": {"claimName": settings.claim}},
                # A container's own /dev/shm is 64 MB, less than data loaders pass to their trainer through it.
                {"name": "memory", "emptyDir": {"medium": "Memory"}},
            ],
        }
        if settings.node_selector:
            pod["nodeSelector"] = dict(settings.node_selector)
        if settings.service_account:
            pod["serviceAccountName"] = settings.service_account
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": job.name,
                "namespace": settings.namespace,
                "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "backoffLimit": 0,  # a retry is the caller's, who sees it
                "ttlSecondsAfterFinished": _KEPT,
                "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
            },
        }

    def submit(self, job: Job) -> str:
        """Raises JobError where the cluster refuses it. A Job of its name that failed is replaced."""
        give_up = time.monotonic() + _GONE
        while time.monotonic() < give_up:
            found = self._read(job)
            if found is None:
                for left in (EXIT, CANCELLED):
                    (job.folder / left).unlink(missing_ok=True)
                if self._create(job):
                    return job.name
            elif not found.metadata.deletion_timestamp:
                if _state(found) is not State.FAILED:
                    return job.name
                self._delete(job, found.metadata.uid)
            time.sleep(_GONE_STEP)
        raise JobError(f"job {job.name}: the one that failed does not go. See `kubectl describe job {job.name}`.")

    def find(self, job: Job) -> str | None:
        return job.name if self._read(job) else None

    def state(self, job: Job, handle: str | None) -> State:  # noqa: ARG002 - the name says it all
        found = self._read(job)
        if found is not None and (state := _state(found)) is not State.FAILED:
            return state
        if (job.folder / CANCELLED).exists():
            return State.CANCELLED
        return State.FAILED if found else exit_state(job.folder) or State.UNKNOWN

    def cancel(self, job: Job, handle: str | None) -> None:  # noqa: ARG002
        found = self._read(job)
        if found is None or _state(found) is not State.RUNNING:
            return
        mark = job.folder / CANCELLED
        mark.touch()
        try:
            self._delete(job, found.metadata.uid)
        except JobError:
            mark.unlink(missing_ok=True)
            raise

    def _create(self, job: Job) -> bool:
        """Whether it was ours to create; no: another was quicker."""
        with self._asking(job, "create", but=(409,)):
            self._batch(job).create_namespaced_job(
                self._settings.namespace, self.manifest(job), _request_timeout=_SECONDS
            )
            return True
        return False

    def _delete(self, job: Job, uid: str) -> None:
        """That one, and not what another has put in its place; it is there until its pods have ended."""
        from kubernetes.client import V1DeleteOptions, V1Preconditions

        options = V1DeleteOptions(propagation_policy="Foreground", preconditions=V1Preconditions(uid=uid))
        with self._asking(job, "delete", but=(404, 409)):
            self._batch(job).delete_namespaced_job(
                job.name, self._settings.namespace, body=options, _request_timeout=_SECONDS
            )

    def _read(self, job: Job) -> Any:
        with self._asking(job, "read", but=(404,)):
            return self._batch(job).read_namespaced_job(job.name, self._settings.namespace, _request_timeout=_SECONDS)
        return None

    def _batch(self, job: Job) -> Any:
        if self._api is None:
            from kubernetes import client, config
            from kubernetes.config.config_exception import ConfigException

            try:
                try:
                    config.load_incluster_config()
                except ConfigException:
                    config.load_kube_config()
            except (ConfigException, OSError) as error:
                raise JobError(
                    f"job {job.name}: no cluster is known ({error}). Set KUBECONFIG, or use the Airflow connection "
                    f"{self._settings.connection}."
                ) from error
            self._api = client.BatchV1Api()
        return self._api

    @contextlib.contextmanager
    def _asking(self, job: Job, what: str, *, but: tuple[int, ...]) -> Iterator[None]:
        """Errors as JobError; ``but``: HTTP statuses that are an answer."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        where = f"job {job.name}: namespace {self._settings.namespace}"
        try:
            yield
        except ApiException as error:
            if error.status in but:
                return
            hint = {401: " Renew its credentials.", 403: " Its account must create, get and delete batch/v1 Jobs."}
            later = error.status == 429 or (error.status or 0) >= 500
            raise (SchedulerError if later else JobError)(
                f"{where}: the cluster answered {error.status} {error.reason} to {what}{_message(error.body)}."
                f"{hint.get(error.status or 0, '')}"
            ) from error
        except (HTTPError, OSError) as error:
            raise SchedulerError(
                f"{where}: the cluster cannot be asked to {what} ({error}). Is it reached from here?"
            ) from error


def _state(found: Any) -> State:
    """Of a Job that the cluster has; it runs on until its pods have ended, whatever is decided already."""
    status = found.status
    for condition in (status.conditions or []) if status else []:
        if condition.status == "True" and condition.type == "Complete":
            return State.SUCCEEDED
        if condition.status == "True" and condition.type == "Failed":
            return State.FAILED
    return State.RUNNING


def _message(body: object) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return f": {json.loads(body)['message']}"  # type: ignore[arg-type]
    return ""
