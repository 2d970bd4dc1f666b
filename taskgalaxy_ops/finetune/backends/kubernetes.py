"""Run jobs as Kubernetes Jobs, whose name in the cluster contains the job's key.

The manifest is rendered with the job's other files. The volume claim is mounted at the path of ``finetune.folder``, so
that every path in those files is valid in the container. Trainers that run in a clone of their repository
(``LLAVA_HOME``) find it in the image.
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
_KEPT = 7 * 24 * 3600  # seconds for which the cluster keeps an ended Job
_SECONDS = 30.0  # the longest that one request may take
_GONE = 90.0  # seconds to wait until a failed Job that is replaced is deleted: its pods have 30 s to end
_GONE_STEP = 0.2


class KubernetesBackend:
    """A cluster's batch API.

    api: a ``kubernetes.client.BatchV1Api``. None: it is opened when it is first needed, with the pod's own account, or
    else with the kubeconfig.
    """

    name = "kubernetes"

    def __init__(self, settings: KubernetesSettings, api: Any = None) -> None:
        self._settings, self._api = settings, api

    def render(self, job: Job) -> Job:
        """The job with its manifest. Raises SettingsError for a folder that Kubernetes cannot mount."""
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
            "taskgalaxy/key": job.key[:63],  # the longest label there is; the annotation holds the whole key
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
                "backoffLimit": 0,  # the caller retries, and its user sees that
                "ttlSecondsAfterFinished": _KEPT,
                "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
            },
        }

    def submit(self, job: Job) -> str:
        """Create the Job unless it runs or has succeeded; replace one of this name that failed. Returns its name.

        Raises JobError where the cluster refuses it, or does not delete the failed one in time.
        """
        give_up = time.monotonic() + _GONE
        while time.monotonic() < give_up:
            existing = self._read(job)
            if existing is None:
                for left in (EXIT, CANCELLED):
                    (job.folder / left).unlink(missing_ok=True)
                if self._create(job):
                    return job.name
            elif not existing.metadata.deletion_timestamp:
                if _state(existing) is not State.FAILED:
                    return job.name
                self._delete(job, existing.metadata.uid)
            time.sleep(_GONE_STEP)
        raise JobError(f"job {job.name}: the one that failed does not go. See `kubectl describe job {job.name}`.")

    def find(self, job: Job) -> str | None:
        return job.name if self._read(job) else None

    def state(self, job: Job, handle: str | None) -> State:  # noqa: ARG002 - the name says it all
        existing = self._read(job)
        if existing is not None and (state := _state(existing)) is not State.FAILED:
            return state
        if (job.folder / CANCELLED).exists():
            return State.CANCELLED
        return State.FAILED if existing else exit_state(job.folder) or State.UNKNOWN

    def cancel(self, job: Job, handle: str | None) -> None:  # noqa: ARG002
        existing = self._read(job)
        if existing is None or _state(existing) is not State.RUNNING:
            return
        mark = job.folder / CANCELLED
        mark.touch()
        try:
            self._delete(job, existing.metadata.uid)
        except JobError:
            mark.unlink(missing_ok=True)
            raise

    def _create(self, job: Job) -> bool:
        """Create the Job; False if another process had already created it."""
        with self._api_errors(job, "create", but=(409,)):
            self._batch(job).create_namespaced_job(
                self._settings.namespace, self.manifest(job), _request_timeout=_SECONDS
            )
            return True
        return False

    def _delete(self, job: Job, uid: str) -> None:
        """Delete the Job with this uid, and not one that replaced it. It exists until its pods have ended."""
        from kubernetes.client import V1DeleteOptions, V1Preconditions

        options = V1DeleteOptions(propagation_policy="Foreground", preconditions=V1Preconditions(uid=uid))
        with self._api_errors(job, "delete", but=(404, 409)):
            self._batch(job).delete_namespaced_job(
                job.name, self._settings.namespace, body=options, _request_timeout=_SECONDS
            )

    def _read(self, job: Job) -> Any:
        with self._api_errors(job, "read", but=(404,)):
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
    def _api_errors(self, job: Job, what: str, *, but: tuple[int, ...]) -> Iterator[None]:
        """Raise errors of the API as JobError, or SchedulerError where a later try may succeed.

        but: HTTP statuses that end the block without an error.
        """
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


def _state(existing: Any) -> State:
    """The state of a ``V1Job`` of the cluster. It is running until its pods have ended, even if its end is certain."""
    status = existing.status
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
