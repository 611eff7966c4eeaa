"""The kinds of panels that Callboard's dashboards are made of, and what all of them have alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    TableSortByFieldState,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import QueryVariable, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

#: Twenty-four columns.
FULL, HALF, THIRD, QUARTER = 24, 12, 8, 6
CHART_ROWS, STAT_ROWS = 8, 4
COLUMN_PIXELS = 80

#: Units, as Grafana calls them. Ages are read as a clock: 00:05:10 and not 5.17 mins. Counts are whole, so
#: that no axis has half a pod, and written out, as an axis of whole thousands has "1 K" twice.
COUNT, SECONDS, CLOCK, SHARE = "locale", "s", "dthms", "percentunit"


def query(expression: str, legend: str, ref: str) -> Dataquery:
    return Dataquery().expr(expression).legend_format(legend).ref_id(ref).datasource(SOURCE)


def letter(number: int) -> str:
    return chr(ord("A") + number)


def color(name: str) -> DynamicConfigValue:
    return DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": name})


def chart(
    title: str,
    says: str,
    width: int,
    unit: str,
    empty: str = "No data",
    colors: Mapping[str, str] | None = None,
    **queries: str,
) -> Timeseries:
    """A chart over time. `queries`: PromQL by legend; `by_label` in it: a line for each of its values.

    `empty`: what stands in its place while no series is there. `colors`: of single lines, by legend.
    """
    panel = (
        Timeseries()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(CHART_ROWS)
        .no_value(empty)
        .line_interpolation(LineInterpolation.STEP_AFTER)
        .fill_opacity(5)
        # The SDK's own defaults hide the legend, and tell of one line only.
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if unit == COUNT:
        panel.decimals(0)
    for number, (legend, expression) in enumerate(queries.items()):
        words, _, label = legend.partition("by_")
        shown = " ".join(filter(None, [f"{{{{{label}}}}}" if label else "", words.replace("_", " ").strip()]))
        panel.with_target(query(expression, shown, letter(number)))
    for name, shade in (colors or {}).items():
        panel.override_by_name(name, [color(shade)])
    return panel


def stat(
    title: str,
    says: str,
    expression: str,
    unit: str = COUNT,
    empty: str = "No data",
    empty_color: str = "text",
    steps: Sequence[tuple[float, str]] = ((0, "text"),),
) -> Stat:
    """One number as it is now.

    `steps`: from which values on it has which colour; without any it is not judged. `empty`, `empty_color`:
    what stands there while it is missing, which must not look like a number that is well.
    """
    shades = [Threshold(color=empty_color), *(Threshold(value=value, color=shade) for value, shade in steps)]
    return (
        Stat()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .decimals(0)
        .span(QUARTER)
        .height(STAT_ROWS)
        .no_value(empty)
        .color_mode(BigValueColorMode.VALUE)
        # An instant query has no course to draw. It is one so that yesterday's number is not today's.
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(shades))
        .with_target(query(expression, title, "A").instant())
    )


def table(
    title: str,
    says: str,
    width: int,
    label: tuple[str, str],
    columns: Mapping[str, str],
    first: str,
    empty: str = "No data",
    rows: int = CHART_ROWS,
) -> Table:
    """What is now, a row for each value of a label. `label`: it and the head of its column.

    `columns`: PromQL by head; each must keep this label only. `first`: the column whose greatest values lead.
    """
    panel = (
        Table()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .span(width)
        .height(rows)
        .no_value(empty)
        # By default 150, at which half a dozen columns do not fit.
        .min_width(COLUMN_PIXELS)
        .sort_by([TableSortByFieldState().display_name(first).desc(True)])
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "renameByName": {
                        label[0]: label[1],
                        **{f"Value #{letter(number)}": head for number, head in enumerate(columns)},
                    },
                    "indexByName": {
                        label[0]: 0,
                        **{f"Value #{letter(number)}": number + 1 for number in range(len(columns))},
                    },
                },
            )
        )
    )
    for number, expression in enumerate(columns.values()):
        panel.with_target(query(expression, "", letter(number)).instant().format(PromQueryFormat.TABLE))
    return panel


def variable(name: str, label: str, values: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": values, "refId": f"variable-{name}"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
