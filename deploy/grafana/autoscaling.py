"""The dashboard "Callboard / Autoscaling": what queues need, what they have, what the autoscalers see."""

from __future__ import annotations

from grafana_foundation_sdk.builders.common import ReduceDataOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.models.common import DataSourceRef, LineInterpolation, TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

UID = "callboard-autoscaling"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

#: Twenty-four columns.
HALF, THIRD, QUARTER = 12, 8, 6
CHART_ROWS, STAT_ROWS = 8, 4

QUEUES = 'namespace="$namespace", queue=~"$queue"'
#: A worker shows its shared slots for each queue that it serves.
SLOTS = f'sum(max by (instance) (callboard_slots{{{QUEUES}, state="total"}}))'
#: The autoscalers of workers, as the rules know them.
AUTOSCALERS = 'horizontalpodautoscaler:callboard_demand:info{namespace="$namespace"}'


def of_autoscalers(series: str) -> str:
    """`series` of those autoscalers that size Callboard's workers."""
    return f"{series} and on (namespace, horizontalpodautoscaler) {AUTOSCALERS}"


def in_condition(condition: str, status: str) -> str:
    """How many of them are in a condition; 0 if none is."""
    matchers = f'namespace="$namespace", condition="{condition}", status="{status}"'
    series = of_autoscalers(f"kube_horizontalpodautoscaler_status_condition{{{matchers}}} == 1")
    return f"count({series}) or vector(0)"


def replicas(series: str) -> str:
    return of_autoscalers(f'kube_horizontalpodautoscaler_{series}{{namespace="$namespace"}}')


def query(expression: str, legend: str, ref: str) -> Dataquery:
    return Dataquery().expr(expression).legend_format(legend).ref_id(ref).datasource(SOURCE)


def chart(title: str, says: str, width: int, unit: str, **queries: str) -> Timeseries:
    """A chart over time. `queries`: PromQL by legend; `by_label` in it: a line for each of its values."""
    panel = (
        Timeseries()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(CHART_ROWS)
        .line_interpolation(LineInterpolation.STEP_AFTER)
        .fill_opacity(5)
    )
    for number, (legend, expression) in enumerate(queries.items()):
        words, _, label = legend.partition("by_")
        shown = " ".join(filter(None, [f"{{{{{label}}}}}" if label else "", words.replace("_", " ").strip()]))
        panel.with_target(query(expression, shown, chr(ord("A") + number)))
    return panel


def stat(title: str, says: str, expression: str, unit: str = "short", bad_from: float | None = None) -> Stat:
    """One number as it is now; red from `bad_from` on."""
    steps = [Threshold(color="green")]
    if bad_from is not None:
        steps.append(Threshold(value=bad_from, color="red"))
    return (
        Stat()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .span(QUARTER)
        .height(STAT_ROWS)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(query(expression, title, "A").instant())
    )


def variable(name: str, label: str, values: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": values, "refId": f"variable-{name}"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def dashboard() -> Dashboard:
    """The whole of it; the panels stand in the order of the questions that one asks."""
    board = (
        Dashboard("Callboard / Autoscaling")
        .uid(UID)
        .description("Generated from deploy/grafana/autoscaling.py: edit that, and run `make dashboards`.")
        .tags(["callboard", "generated"])
        .timezone(TimeZoneBrowser)
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            variable("namespace", "Namespace", "label_values(callboard_queue_demand_slots, namespace)")
        )
        .with_variable(
            variable(
                "queue", "Queue", 'label_values(callboard_queue_demand_slots{namespace="$namespace"}, queue)'
            )
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    return rows_of_work(rows_of_autoscalers(rows_of_demand(board)))


def rows_of_demand(board: Dashboard) -> Dashboard:
    """Do the queues get what they need?"""
    return (
        board.with_row(Row("Demand and capacity"))
        .with_panel(
            stat(
                "Demand",
                "Slots that the chosen queues need now. No value: it is missing, and autoscalers hold.",
                f"sum(max by (queue) (callboard_queue_demand_slots{{{QUEUES}}}))",
            )
        )
        .with_panel(
            stat(
                "Slots",
                "Slots that workers offer to them. Queues of one worker share its slots: they count once.",
                f"{SLOTS} or vector(0)",
            )
        )
        .with_panel(
            stat(
                "Oldest waiting task",
                "How long the oldest task that is ready has waited.",
                f"max(callboard_oldest_queued_age_seconds{{{QUEUES}}})",
                "s",
                bad_from=300,
            )
        )
        .with_panel(
            stat(
                "Queues without a worker",
                "Queues that need slots and have none, nor a worker of Dramatiq's own.",
                f"count(max by (queue) (callboard_queue_demand_slots{{{QUEUES}}}) > 0 unless on (queue) "
                f'sum by (queue) (callboard_slots{{{QUEUES}, state="total"}}) > 0 unless on (queue) '
                f"max by (queue) (callboard_guests{{{QUEUES}}}) > 0) or vector(0)",
                bad_from=1,
            )
        )
        .with_panel(
            chart(
                "Demand, slots and busy slots",
                "Slots follow demand; busy ones follow slots while there is work.",
                HALF,
                "short",
                demand=f"sum(max by (queue) (callboard_queue_demand_slots{{{QUEUES}}}))",
                slots=SLOTS,
                busy=f'sum(callboard_slots{{{QUEUES}, state="busy"}})',
            )
        )
        .with_panel(
            chart(
                "Demand by queue",
                "running + ceil(waiting × min(1, mean run / wait objective)).",
                HALF,
                "short",
                by_queue=f"max by (queue) (callboard_queue_demand_slots{{{QUEUES}}})",
            )
        )
        .with_panel(
            chart(
                "Waiting tasks by queue",
                "Ready to run, and not started.",
                THIRD,
                "short",
                by_queue=f'max by (queue) (callboard_tasks{{{QUEUES}, state="queued"}})',
            )
        )
        .with_panel(
            chart(
                "Oldest waiting task by queue",
                "How far behind a queue is.",
                THIRD,
                "s",
                by_queue=f"max by (queue) (callboard_oldest_queued_age_seconds{{{QUEUES}}})",
            )
        )
        .with_panel(
            chart(
                "Wait before the first start, p95",
                "What users feel; compare it with the queue's wait objective.",
                THIRD,
                "s",
                by_queue="histogram_quantile(0.95, sum by (queue, le) ("
                f"rate(callboard_task_wait_seconds_bucket{{{QUEUES}}}[$__rate_interval])))",
            )
        )
    )


def rows_of_autoscalers(board: Dashboard) -> Dashboard:
    """Do the autoscalers see it, and may they do what they want?"""
    return (
        board.with_row(Row("Autoscalers"))
        .with_panel(
            stat(
                "Blind",
                "Autoscalers whose metric fails: they hold. (At zero replicas this is how they sleep.)",
                in_condition("ScalingActive", "false"),
                bad_from=1,
            )
        )
        .with_panel(
            stat(
                "Limited",
                "Autoscalers that want more than their maximum, or less than their minimum.",
                in_condition("ScalingLimited", "true"),
            )
        )
        .with_panel(
            stat(
                "Unable",
                "Autoscalers that cannot change their Deployment.",
                in_condition("AbleToScale", "false"),
                bad_from=1,
            )
        )
        .with_panel(
            stat(
                "Exporters of the demand",
                "Processes that show it. One is enough; with none, nothing scales.",
                'max(count by (queue) (callboard_queue_demand_slots{namespace="$namespace"})) or vector(0)',
            )
        )
        .with_panel(
            chart(
                "Pods wanted and there",
                "What each autoscaler wants, and what it has.",
                HALF,
                "short",
                wanted_by_horizontalpodautoscaler=replicas("status_desired_replicas"),
                there_by_horizontalpodautoscaler=replicas("status_current_replicas"),
            )
        )
        .with_panel(
            chart(
                "Between minimum and maximum",
                "Its bounds. At its maximum for long: raise it, or give the queues a wait objective.",
                HALF,
                "short",
                wanted_by_horizontalpodautoscaler=replicas("status_desired_replicas"),
                minimum_by_horizontalpodautoscaler=replicas("spec_min_replicas"),
                maximum_by_horizontalpodautoscaler=replicas("spec_max_replicas"),
            )
        )
    )


def rows_of_work(board: Dashboard) -> Dashboard:
    """Does the work get done while they do it?"""
    return (
        board.with_row(Row("Work"))
        .with_panel(
            chart(
                "Attempts ended, by outcome",
                "Scaling in must not show here: a release costs no attempt.",
                THIRD,
                "ops",
                by_outcome="sum by (outcome) ("
                f"rate(callboard_tasks_finished_total{{{QUEUES}}}[$__rate_interval]))",
            )
        )
        .with_panel(
            chart(
                "Run time, p95",
                "The stabilisation window of scaling down should be longer than this.",
                THIRD,
                "s",
                by_queue="histogram_quantile(0.95, sum by (queue, le) ("
                f"rate(callboard_task_run_seconds_bucket{{{QUEUES}}}[$__rate_interval])))",
            )
        )
        .with_panel(
            chart(
                "Claims lost",
                "Tasks that passed to another worker: one died, or was cut off from Redis.",
                THIRD,
                "ops",
                by_queue=f"sum by (queue) (rate(callboard_lease_losses_total{{{QUEUES}}}[$__rate_interval]))",
            )
        )
    )
