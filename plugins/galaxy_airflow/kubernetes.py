"""The cluster of an Airflow connection, for the library's Kubernetes backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubernetes.client import BatchV1Api


def batch_api(connection: str) -> BatchV1Api:
    """The batch API of an Airflow connection of type ``kubernetes``, with the credentials that it names."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
    from kubernetes.client import BatchV1Api

    return BatchV1Api(KubernetesHook(conn_id=connection).get_conn())
