"""The settings as a page: `python -m callboard.settings > docs/settings.md`."""

from __future__ import annotations

from dataclasses import dataclass

from callboard.settings.model import Settings, extra, variable


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One row of the settings page; `default` as one would write it, empty for none."""

    name: str
    type: str
    default: str
    help: str
    secret: bool


def describe() -> list[SettingDoc]:
    """Every setting in the order of the page."""
    rows = []
    for field, info in Settings.model_fields.items():
        known = extra(field)
        default = info.default
        text = "" if default is None else ",".join(default) if isinstance(default, tuple) else str(default)
        rows.append(
            SettingDoc(variable(field), known["expected"], text, info.description or "", known["secret"])
        )
    return rows


def page() -> str:
    """`docs/settings.md`, whole."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable. A secret may come from a file instead: the same name",
        "with `_FILE` holds the path. An empty value counts as unset. An unknown `CALLBOARD_…` name stops",
        "the start and names the nearest known one; variables that Kubernetes injects for a Service called",
        "`callboard` are ignored.",
        "",
        "This page is generated: `python -m callboard.settings > docs/settings.md`.",
        "",
        "| Setting | Value | Default | What it does |",
        "|-|-|-|-|",
    ]
    for row in describe():
        note = f" Secret: also `{row.name}_FILE`." if row.secret else ""
        default = f"`{row.default}`" if row.default else "–"
        lines.append(f"| `{row.name}` | {row.type} | {default} | {row.help}{note} |")
    return "\n".join(lines) + "\n"
