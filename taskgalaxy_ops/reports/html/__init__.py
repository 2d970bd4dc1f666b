"""The contact sheet: one self-contained HTML page by which a data engineer judges a data set."""

from taskgalaxy_ops.reports.html.data import Item, ReportData, thumbnail
from taskgalaxy_ops.reports.html.page import Cell, Lines, Link, Pictures, render, table_page

__all__ = ["Cell", "Item", "Lines", "Link", "Pictures", "ReportData", "render", "table_page", "thumbnail"]
