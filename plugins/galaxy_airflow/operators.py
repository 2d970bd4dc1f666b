"""The operators of all our tasks: they say in one sentence what is wrong, may wait without a slot, and ask a person."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.decorators.sensor import DecoratedSensorOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import ExceptionRetryPolicy, Param
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput, TaskDeferred

from galaxy_airflow.links import PageLink, address_of
from galaxy_airflow.notes import SAYS
from taskgalaxy_ops.errors import TaskGalaxyError

log = logging.getLogger("taskgalaxy")

PLANNED = "galaxy_planned"  # the key of the XCom with the receipt of a plan that a person decides on
ASKS = "galaxy_asks"  # the key of the XCom with the text (Markdown) that a person decides on
_OFFERED = 500  # new nodes that can be struck out in the form
_WIDTH = 100  # characters of a line that the log's view shows without scrolling


class TaskFailed(SystemExit):
    """Ends a task by an error that a user may see. Airflow prints a traceback for every exception but this kind."""

    def __init__(self, error: TaskGalaxyError) -> None:
        super().__init__(1)
        self.error = error

    def __str__(self) -> str:
        return str(self.error)


class RetryByError(ExceptionRetryPolicy):
    """Rules for the errors that end tasks, of which `TaskFailed` holds ours."""

    def evaluate(self, exception: BaseException, *more: Any, **named: Any) -> Any:
        """The decision for an exception, as Airflow asks for it."""
        return super().evaluate(exception.error if isinstance(exception, TaskFailed) else exception, *more, **named)


class NotChosen(AirflowSkipException):
    """Skips a task that the form or the settings did not ask for: nothing that the run's note has to say."""


class Waiting(TaskDeferred):
    """Defers a task, with the reason."""

    def __init__(self, why: str, **more: Any) -> None:
        super().__init__(**more)
        self.why = why


class SaysWhy:
    """Says why a task fails, waits or is skipped, or where its page is: in the log's last lines and the run's note."""

    resumed = False  # after it was deferred

    def execute(self, context: Any) -> Any:
        """Run the task. Raises TaskFailed in place of our own errors."""
        ti = context["ti"]
        try:
            result = super().execute(context)  # type: ignore[misc]
        except NotChosen as skip:
            log.info("Skipped: %s", skip)
            raise
        except AirflowSkipException as skip:
            _say(ti, logging.INFO, f"Skipped: {skip}")
            raise
        except Waiting as waiting:
            _say(ti, logging.WARNING, waiting.why)
            raise
        except TaskAwaitingInput:
            _say(ti, logging.INFO, "Waits for a person: Browse, Required Actions")
            raise
        except TaskGalaxyError as error:
            _say(ti, logging.ERROR, str(error))
            raise TaskFailed(error) from None
        if address := address_of(result):
            (button,) = self.operator_extra_links  # type: ignore[attr-defined]
            _say(ti, logging.INFO, f"{button.name}: {address}")
        elif self.resumed or ti.try_number > 1:
            ti.xcom_push(SAYS, "")  # what it said is over
        return result


def _say(ti: Any, level: int, text: str) -> None:
    try:
        ti.xcom_push(SAYS, text)
    except Exception:  # the reason in the log is what counts
        log.exception("the reason could not be told to the run's note")
    for line in text.splitlines():
        for part in textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False):
            log.log(level, "%s", part)


class GalaxyOperator(SaysWhy, DecoratedOperator, PythonOperator):
    """A ``@task`` that may defer itself; when the trigger fires, its function is called again from the beginning."""

    custom_operator_name = "@task"
    template_fields = ("templates_dict", "op_args", "op_kwargs")

    def __init__(self, **options: Any) -> None:
        own = {name: options[name] for name in ("python_callable", "op_args", "op_kwargs")}
        # The receipt is logged already.
        super().__init__(kwargs_to_upstream=own, show_return_value_in_logs=False, **options)

    def call_again(self, context: Any, event: Any, **kept: Any) -> Any:  # noqa: ARG002 - the store says what is to do
        """Run the function again after the task was deferred. kept: arguments that it gets more than before."""
        self.resumed = True
        self.op_kwargs = {**self.op_kwargs, **kept}
        return self.execute(context)


class GalaxySensor(SaysWhy, DecoratedSensorOperator):
    """A ``@task.sensor``."""


def strike_out(paths: Sequence[str] = ()) -> Param:
    """The field by which a person strikes nodes out of a proposal. paths: those that it offers."""
    return Param(
        [],
        source="task",
        type=["null", "array"],
        items={"type": "string"},
        **({"examples": list(paths)} if paths else {}),
        title="Strike out",
        description="New nodes that are not to be published, with all below them. They are not proposed again.",
    )


class _Approval(ApprovalOperator):
    # The body is not in here: it contains a model's text, which must never be rendered as a template.
    template_fields = ("about",)

    def __init__(self, *, about: Any, **more: Any) -> None:
        super().__init__(subject="Approve?", **more)
        self.about = about

    def execute_complete(self, context: Any, event: Any) -> Any:
        """Go on after a person has answered."""
        context["ti"].xcom_push(SAYS, "")  # it waits no more
        return super().execute_complete(context=context, event=event)


class _TaxonomyApproval(_Approval):
    def execute(self, context: Any) -> Any:
        """Ask, or skip where the settings ask for nobody's approval of this proposal."""
        from galaxy_airflow.tasks import taxonomy

        if not taxonomy.needs_person(self.about):
            raise NotChosen("the settings (taxonomy.approval) ask for nobody's approval of this proposal")
        self.subject = f"Publish {self.about['added']:,} new nodes of the taxonomy?"
        self.body = context["ti"].xcom_pull(task_ids="propose", key=ASKS)
        self.params = ParamsDict({"strike_out": strike_out(taxonomy.new_nodes(self.about["proposal"])[:_OFFERED])})
        return super().execute(context)

    def execute_complete(self, context: Any, event: Any) -> Any:
        """Go on after a person has answered; what was rejected is remembered first."""
        from galaxy_airflow.tasks import taxonomy

        if list(event.get("chosen_options") or ()) == [self.REJECT]:
            count = taxonomy.refuse_proposal(self.about["proposal"])
            log.info("Rejected: %d new nodes are remembered, and not proposed again", count)
        return super().execute_complete(context, event)


class TaxonomyApproval(SaysWhy, _TaxonomyApproval):
    """Asks a person to approve or reject a proposal, which the form shows. about: the receipt of ``propose``."""


class _PlanApproval(_Approval):
    operator_extra_links = (PageLink("Plan", PLANNED),)  # a rejected one returns nothing

    def execute(self, context: Any) -> Any:
        """Plan and ask, or skip where the form did not choose to plan first."""
        from galaxy_airflow.tasks import backfill

        planned, self.body = backfill.plan_first(self.about, context["params"]["then"])
        sources = planned["sources"]
        self.subject = f"Run {len(sources):,} sources?" if len(sources) > 1 else "Run this source?"
        context["ti"].xcom_push(PLANNED, planned)
        return super().execute(context)


class PlanApproval(SaysWhy, _PlanApproval):
    """Plans a run of sources and asks a person to approve it, if the form chose that.

    about: the receipts of the tasks that registered the sources; any other receipt stands for all that are registered.
    """


def task(python_callable: Any = None, **options: Any) -> Any:
    """As Airflow's ``@task``, bare or with options."""
    return task_decorator_factory(python_callable, decorated_operator_class=GalaxyOperator, **options)


def sensor(**options: Any) -> Any:
    """As Airflow's ``@task.sensor(…)``."""
    return task_decorator_factory(multiple_outputs=False, decorated_operator_class=GalaxySensor, **options)
