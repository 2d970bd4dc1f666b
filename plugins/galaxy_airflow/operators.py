"""The one operator of ours: a person decides upon a proposed taxonomy version."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator


class TaxonomyApproval(ApprovalOperator):
    """Approve or Reject, with the proposal in the form. ``proposed``: the receipt of the task that proposed it."""

    # Not the body: it is the model's text, which must never be taken for a template.
    template_fields = ("proposed",)

    def __init__(self, *, proposed: Any, **more: Any) -> None:
        super().__init__(subject="Publish these task types?", **more)
        self.proposed = proposed

    def execute(self, context: Any) -> Any:
        from galaxy_airflow import steps

        self.subject = f"Publish {self.proposed['added']:,} new nodes of the taxonomy?"
        self.body = steps.proposal_text(self.proposed["proposal"])
        return super().execute(context)
