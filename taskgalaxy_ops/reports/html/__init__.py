"""The contact sheet: one self-contained HTML page by which a data engineer judges a data set."""

from taskgalaxy_ops.reports.html.data import Item, ReportData, thumbnail
from taskgalaxy_ops.reports.html.page import Link, render, table_page

__all__ = ["Item", "Link", "ReportData", "render", "table_page", "thumbnail"]
