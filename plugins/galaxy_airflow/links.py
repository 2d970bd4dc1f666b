"""A task's button that opens the page which the task wrote: contact sheet, plan, forecast, proposal, result card."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from airflow.sdk import XComArg
from airflow.sdk.bases.operatorlink import BaseOperatorLink

PAGE_NAME = re.compile(r"[a-z0-9-]{1,80}")
PREFIX = "/galaxy"


class PageLink(BaseOperatorLink):
    """A link to the page that the task's receipt names under ``page``. key: of the XCom that is the receipt."""

    def __init__(self, name: str, key: str = "return_value") -> None:
        self._name, self._key = name, key

    @property
    def name(self) -> str:
        return self._name

    @property
    def xcom_key(self) -> str:
        return "galaxy_page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        return page_of(ti_key.xcom_pull(task_ids=ti_key.task_id, map_indexes=ti_key.map_index, key=self._key))


def page_of(receipt: Any) -> str:
    """The address of the page that a task's receipt names; "" if it names none."""
    page = receipt.get("page") if isinstance(receipt, dict) else None
    return f"{root()}/reports/{page}" if isinstance(page, str) and PAGE_NAME.fullmatch(page) else ""


def address_of(receipt: Any) -> str:
    """As `page_of`, with scheme and host where Airflow's ``[api] base_url`` gives them."""
    from airflow.sdk import conf

    page = page_of(receipt)
    return urljoin(conf.get("api", "base_url", fallback=""), page) if page else ""


def root() -> str:
    """The path of our pages on Airflow's API server."""
    from airflow.sdk import conf

    return urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/") + PREFIX


def linked(task: XComArg, name: str) -> XComArg:
    """Give the task a button of this name that opens the page which the task writes; returns the task."""
    task.operator.operator_extra_links = (PageLink(name),)  # type: ignore[attr-defined]
    return task
