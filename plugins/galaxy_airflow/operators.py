"""Two operators: one asks a person to approve a proposed taxonomy version, one gives its slot back while it waits."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory


class TaxonomyApproval(ApprovalOperator):
    """Asks a person to approve or reject a proposal, which the form shows. proposed: the receipt of ``propose``."""

    # The body is not in here: it contains a model's text, which must never be rendered as a template.
    template_fields = ("proposed",)

    def __init__(self, *, proposed: Any, **more: Any) -> None:
        super().__init__(subject="Publish these task types?", **more)
        self.proposed = proposed

    def execute(self, context: Any) -> Any:
        from galaxy_airflow.tasks import taxonomy

        self.subject = f"Publish {self.proposed['added']:,} new nodes of the taxonomy?"
        self.body = taxonomy.proposal_text(self.proposed["proposal"])
        return super().execute(context)


class WaitingOperator(DecoratedOperator, PythonOperator):
    """A ``@task`` that may defer itself; when the trigger fires, its function is called again from the beginning."""

    custom_operator_name = "@waiting_task"
    template_fields = ("templates_dict", "op_args", "op_kwargs")

    def __init__(self, **options: Any) -> None:
        own = {name: options[name] for name in ("python_callable", "op_args", "op_kwargs")}
        super().__init__(kwargs_to_upstream=own, **options)

    def call_again(self, context: Any, event: Any) -> Any:  # noqa: ARG002 - the journal says what is to be done
        """Run the function again after the task was deferred."""
        return self.execute(context)


def waiting_task(**options: Any) -> Any:
    """Airflow's ``@task(…)``, for a function that may defer."""
    return task_decorator_factory(decorated_operator_class=WaitingOperator, **options)
