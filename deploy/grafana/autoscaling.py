"""The dashboard "Callboard / Autoscaling": what queues need, what they have, what the autoscalers see."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DynamicConfigValue

from deploy.grafana.panels import (
    CLOCK,
    COUNT,
    FULL,
    HALF,
    SECONDS,
    SHARE,
    THIRD,
    chart,
    stat,
    table,
    variable,
)

UID = "callboard-autoscaling"

QUEUES = 'namespace="$namespace", queue=~"$queue"'
DEMAND = f"max by (queue) (callboard_queue_demand_slots{{{QUEUES}}})"
#: A worker shows its shared slots for each queue that it serves.
SLOTS = f'sum(max by (instance) (callboard_slots{{{QUEUES}, state="total"}}))'
OLDEST = f"max by (queue) (callboard_oldest_queued_age_seconds{{{QUEUES}}})"
WAITING = f'max by (queue) (callboard_tasks{{{QUEUES}, state="queued"}})'
#: The autoscalers of workers, as the rules know them.
AUTOSCALERS = 'horizontalpodautoscaler:callboard_demand:info{namespace="$namespace"}'
STATES = ("total", "busy")
#: One colour for an outcome, whichever else there are.
OUTCOMES = {
    "completed": "green",
    "cancelled": "blue",
    "retry": "yellow",
    "timeout": "orange",
    "failed": "red",
    "crashed": "dark-red",
    "memory": "purple",
    "lost": "dark-purple",
}
#: What stands in the place of a figure that nobody shows.
NO_AUTOSCALER = "None seen"
NO_DEMAND = "Missing"
NO_QUEUE = "No queue seen: is Callboard scraped in this namespace?"


def of_autoscalers(series: str, matchers: str = "") -> str:
    """A series of kube-state-metrics, of those autoscalers that size Callboard's workers, one each."""
    chosen = f'kube_horizontalpodautoscaler_{series}{{namespace="$namespace"{matchers}}}'
    return (
        f"max by (horizontalpodautoscaler) "
        f"({chosen} and on (namespace, horizontalpodautoscaler) {AUTOSCALERS})"
    )


def condition(name: str, status: str) -> str:
    """1 for those in a condition, else 0."""
    return of_autoscalers("status_condition", f', condition="{name}", status="{status}"')


WANTED = of_autoscalers("status_desired_replicas")
CURRENT = of_autoscalers("status_current_replicas")
MINIMUM = of_autoscalers("spec_min_replicas")
MAXIMUM = of_autoscalers("spec_max_replicas")


def counted(series: str, *, all_of: str) -> str:
    """How many `series` are; 0 if none is, but nothing while nobody shows what they are of."""
    return f"count({series}) or count({all_of}) * 0"


def grown(counter: str, label: str) -> str:
    """By how much a counter grew within the interval of the chart.

    A counter with labels is born with its first event in it, which `increase` alone never sees. One that was
    there within the hour is not born again: a gap between scrapes would show all that it ever counted.
    """
    series = f"{counter}{{{QUEUES}}}"
    born = f"({series} unless last_over_time({series}[1h] offset $__rate_interval))"
    return f"sum by ({label}) ({born} or increase({series}[$__rate_interval]))"


def p95(histogram: str) -> str:
    buckets = f"rate({histogram}_bucket{{{QUEUES}}}[$__rate_interval])"
    return f"histogram_quantile(0.95, sum by (queue, le) ({buckets}))"


def see(alert: str) -> str:
    return f"\n\nRunbook: docs/runbooks/{alert}.md"


def dashboard() -> Dashboard:
    """The whole of it; the panels stand in the order of the questions that one asks."""
    board = (
        Dashboard("Callboard / Autoscaling")
        .uid(UID)
        .description(
            "Do queues get the workers that they need, and if not, why? Autoscalers show with "
            "kube-state-metrics and Callboard's rules in this Prometheus. "
            "Generated: edit deploy/grafana/autoscaling.py and run `make dashboards`."
        )
        .tags(["callboard", "generated"])
        .timezone(TimeZoneBrowser)
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        # Every process shows this one, also while Redis is away and nobody shows a demand.
        .with_variable(
            variable("namespace", "Namespace", "label_values(callboard_redis_errors_total, namespace)")
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
                "Slots that the chosen queues need now. While it is missing, autoscalers hold."
                + see("CallboardDemandMetricAbsent"),
                f"sum({DEMAND})",
                empty=NO_DEMAND,
                empty_color="red",
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
                "How long the oldest task that is ready has waited. Red from 5 minutes on; "
                "whether that is long is up to the queue.",
                f"max({OLDEST})",
                CLOCK,
                empty=NO_DEMAND,
                empty_color="red",
                steps=[(0, "green"), (300, "red")],
            )
        )
        .with_panel(
            stat(
                "Queues without a worker",
                "Queues that need slots and have none, nor a worker of Dramatiq's own. "
                "The table of queues names them: a demand, and no slots." + see("CallboardNoConsumers"),
                counted(
                    f"{DEMAND} > 0 unless on (queue) "
                    f'sum by (queue) (callboard_slots{{{QUEUES}, state="total"}}) > 0 unless on (queue) '
                    f"max by (queue) (callboard_guests{{{QUEUES}}}) > 0",
                    all_of=DEMAND,
                ),
                empty=NO_DEMAND,
                empty_color="red",
                steps=[(0, "green"), (1, "red")],
            )
        )
        .with_panel(
            chart(
                "Demand, slots and busy slots",
                "Slots follow demand; busy ones follow slots while there is work.",
                HALF,
                COUNT,
                empty=NO_QUEUE,
                colors={"demand": "orange", "slots": "blue", "busy": "green"},
                demand=f"sum({DEMAND})",
                slots=SLOTS,
                busy=f'sum(callboard_slots{{{QUEUES}, state="busy"}})',
            )
        )
        .with_panel(queues_now())
        .with_panel(
            chart(
                "Demand by queue",
                "Slots: running + ceil(waiting × min(1, mean run / wait objective)).",
                THIRD,
                COUNT,
                empty=NO_QUEUE,
                by_queue=DEMAND,
            )
        )
        .with_panel(
            chart(
                "Waiting tasks by queue",
                "Ready to run, and not started.",
                THIRD,
                COUNT,
                empty=NO_QUEUE,
                by_queue=WAITING,
            )
        )
        .with_panel(
            chart(
                "Oldest waiting task by queue",
                "How far behind a queue is.",
                THIRD,
                CLOCK,
                empty=NO_QUEUE,
                by_queue=OLDEST,
            )
        )
    )


def queues_now() -> Table:
    """Which queue is it?"""
    slots = {state: f'sum by (queue) (callboard_slots{{{QUEUES}, state="{state}"}})' for state in STATES}
    none = [DynamicConfigValue(id_val="noValue", value="none")]
    panel = table(
        "Queues now",
        "The queue that is furthest behind first. Slots that several queues share stand at each of them; "
        "no slots: no worker serves it, but perhaps one of Dramatiq's own.",
        HALF,
        ("queue", "Queue"),
        {
            "Demand": DEMAND,
            "Slots": slots["total"],
            "Busy": slots["busy"],
            "Waiting": WAITING,
            "Oldest waits": OLDEST,
        },
        first="Oldest waits",
        empty=NO_QUEUE,
    )
    panel.override_by_name("Oldest waits", [DynamicConfigValue(id_val="unit", value=CLOCK)])
    return panel.override_by_name("Slots", none).override_by_name("Busy", none)


def rows_of_autoscalers(board: Dashboard) -> Dashboard:
    """Do the autoscalers see it, and may they do what they want?"""
    at_maximum = (
        f"{WANTED} >= {MAXIMUM} and {MAXIMUM} > {MINIMUM} and {condition('ScalingLimited', 'true')} == 1"
    )
    blind = (
        f"{AUTOSCALERS} unless on (horizontalpodautoscaler) {condition('ScalingActive', 'true')} == 1 "
        f"unless on (horizontalpodautoscaler) ({condition('ScalingActive', 'false')} == 1 and {CURRENT} == 0)"
    )
    return (
        board.with_row(Row("Autoscalers"))
        .with_panel(
            stat(
                "Blind autoscalers",
                "Those whose metric fails: they hold what they have. Those at zero pods are left out: "
                "that is how they sleep." + see("CallboardAutoscalerBlind"),
                counted(blind, all_of=AUTOSCALERS),
                empty=NO_AUTOSCALER,
                steps=[(0, "green"), (1, "red")],
            )
        )
        .with_panel(
            stat(
                "Autoscalers at their maximum",
                "Those that want more pods than they may have." + see("CallboardAutoscalerAtMax"),
                counted(at_maximum, all_of=AUTOSCALERS),
                empty=NO_AUTOSCALER,
                steps=[(0, "green"), (1, "orange")],
            )
        )
        .with_panel(
            stat(
                "Autoscalers that cannot scale",
                "Those that cannot read or change their Deployment: `kubectl describe hpa` says why.",
                counted(f"{condition('AbleToScale', 'false')} == 1", all_of=AUTOSCALERS),
                empty=NO_AUTOSCALER,
                steps=[(0, "green"), (1, "red")],
            )
        )
        .with_panel(
            stat(
                "Processes that show the demand",
                "API and scheduler do. One is enough; with none, nothing scales."
                + see("CallboardDemandMetricAbsent"),
                'max(count by (queue) (callboard_queue_demand_slots{namespace="$namespace"})) or vector(0)',
                steps=[(0, "red"), (1, "green")],
            )
        )
        .with_panel(autoscalers_now())
        .with_panel(
            chart(
                "Pods wanted by autoscaler",
                "What each wants to have, within its bounds.",
                HALF,
                COUNT,
                empty=NO_AUTOSCALER,
                by_horizontalpodautoscaler=WANTED,
            )
        )
        .with_panel(
            chart(
                "Pods wanted, of the maximum",
                "At 100% for long: raise the maximum, or give the queues a wait objective."
                + see("CallboardAutoscalerAtMax"),
                HALF,
                SHARE,
                empty=NO_AUTOSCALER,
                by_horizontalpodautoscaler=f"{WANTED} / {MAXIMUM}",
            ).max(1)
        )
    )


def autoscalers_now() -> Table:
    """Which autoscaler is it?"""
    said = {"0": {"text": "no", "color": "orange", "index": 0}, "1": {"text": "yes", "index": 1}}
    return table(
        "Autoscalers now",
        "At zero pods an autoscaler sees no demand: it sleeps.",
        FULL,
        ("horizontalpodautoscaler", "Autoscaler"),
        {
            "Minimum": MINIMUM,
            "Wanted": WANTED,
            "Pods": CURRENT,
            "Maximum": MAXIMUM,
            "Sees its demand": condition("ScalingActive", "true"),
        },
        first="Wanted",
        empty=NO_AUTOSCALER,
        rows=6,
    ).override_by_name(
        "Sees its demand",
        [
            DynamicConfigValue(id_val="mappings", value=[{"type": "value", "options": said}]),
            DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
        ],
    )


def rows_of_work(board: Dashboard) -> Dashboard:
    """Does the work get done while they do it?"""
    return (
        board.with_row(Row("Work"))
        .with_panel(
            chart(
                "Wait before the first start, p95",
                "What users feel; compare it with the queue's wait objective.",
                HALF,
                SECONDS,
                empty="Nothing started",
                by_queue=p95("callboard_task_wait_seconds"),
            )
        )
        .with_panel(
            chart(
                "Run time, p95",
                "The stabilisation window of scaling down should be longer than this.",
                HALF,
                SECONDS,
                empty="Nothing ended",
                by_queue=p95("callboard_task_run_seconds"),
            )
        )
        .with_panel(
            chart(
                "Attempts ended, by outcome",
                "In each interval of the chart. Scaling in must not show here: a release costs no attempt.",
                HALF,
                COUNT,
                empty="Nothing ended",
                colors=OUTCOMES,
                by_outcome=grown("callboard_tasks_finished_total", "outcome"),
            )
        )
        .with_panel(
            chart(
                "Claims lost",
                "Tasks that passed to another worker while theirs lived: it was cut off from Redis, or stood "
                "still for a lease. In each interval of the chart. A worker that died cannot count here.",
                HALF,
                COUNT,
                empty="None lost",
                by_queue=grown("callboard_lease_losses_total", "queue"),
            )
        )
    )
