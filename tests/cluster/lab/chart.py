"""The chart of a story, as SVG: demand, busy slots and pods over one time axis."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cluster.lab.story import Moment

_WIDTH, _HEIGHT = 880, 500
_LEFT, _RIGHT, _TOP, _GAP, _BOTTOM = 56, 16, 62, 32, 40
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'
_INK, _FAINT, _GRID = "#1f2933", "#616e7c", "#d9dee4"
_DEMAND, _BUSY, _WANTED, _READY = "#b45309", "#0f766e", "#9aa5b1", "#1d4ed8"


def draw(moments: Sequence[Moment], chapters: Sequence[tuple[float, str]], title: str) -> str:
    """Three panels; a dashed line where each chapter begins. Not empty."""
    seconds, panels = max(moment.at for moment in moments), []
    height = (_HEIGHT - _TOP - 2 * _GAP - _BOTTOM) / 3
    highest = [
        max(moment.demand or 0 for moment in moments),
        max(moment.busy or 0 for moment in moments),
        max(moment.wanted or 0 for moment in moments),
    ]
    for number, most in enumerate(highest):
        panels.append(_Panel(_TOP + number * (height + _GAP), height, seconds, _nice(most)))
    demand, busy, pods = panels
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" fill="{_INK}" font-size="14" font-weight="600">{title}</text>',
        *demand.frame("slots"),
        *busy.frame("slots"),
        *pods.frame("pods"),
    ]
    for number, (at, name) in enumerate(chapters):
        # In two rows by turns: chapters may be short, and their names are not.
        x, bottom, y = demand.x(at), _HEIGHT - _BOTTOM, _TOP - 8 - number % 2 * 14
        parts.append(
            f'<path d="M{x:.1f} {y - 8} V{bottom}" stroke="{_FAINT}" stroke-dasharray="3 3" fill="none"/>'
        )
        parts.append(f'<text x="{x + 4:.1f}" y="{y}" fill="{_FAINT}" font-size="11">{name}</text>')
    parts += [
        demand.line([(m.at, m.demand) for m in moments], _DEMAND),
        busy.line([(m.at, m.busy) for m in moments], _BUSY),
        pods.line([(m.at, m.wanted) for m in moments], _WANTED, steps=True),
        pods.line([(m.at, m.ready) for m in moments], _READY, steps=True),
        *demand.legend([("demand", _DEMAND)]),
        *busy.legend([("busy", _BUSY)]),
        *pods.legend([("wanted by the HPA", _WANTED), ("ready", _READY)]),
        *pods.time_axis(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _nice(highest: float) -> float:
    """A round number not below the highest value."""
    for step in (4, 8, 12, 16, 20, 40, 50, 80, 100, 200, 300, 400, 500, 800, 1000):
        if step >= highest:
            return step
    return highest


class _Panel:
    def __init__(self, top: float, height: float, seconds: float, highest: float) -> None:
        self._top, self._height, self._seconds, self._highest = top, height, seconds, highest

    def x(self, at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at / self._seconds

    def y(self, value: float) -> float:
        return self._top + self._height * (1 - value / self._highest)

    def frame(self, unit: str) -> list[str]:
        parts = []
        for share in (0, 0.25, 0.5, 0.75, 1):
            y, value = self.y(self._highest * share), self._highest * share
            parts.append(f'<path d="M{_LEFT} {y:.1f} H{_WIDTH - _RIGHT}" stroke="{_GRID}" fill="none"/>')
            parts.append(
                f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" fill="{_FAINT}" text-anchor="end">{value:g}</text>'
            )
        middle = self._top + self._height / 2
        parts.append(
            f'<text x="14" y="{middle:.1f}" fill="{_INK}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle:.1f})">{unit}</text>'
        )
        return parts

    def line(self, points: Sequence[tuple[float, float | None]], colour: str, *, steps: bool = False) -> str:
        """A line that breaks where nobody said a value."""
        path, pen_down, before = [], False, 0.0
        for at, value in points:
            if value is None:
                pen_down = False
                continue
            x, y = self.x(at), self.y(value)
            if not pen_down:
                path.append(f"M{x:.1f} {y:.1f}")
            elif steps and y != before:
                path.append(f"H{x:.1f}V{y:.1f}")
            else:
                path.append(f"L{x:.1f} {y:.1f}")
            pen_down, before = True, y
        return f'<path d="{"".join(path)}" stroke="{colour}" stroke-width="2" fill="none"/>'

    def legend(self, entries: Sequence[tuple[str, str]]) -> list[str]:
        parts, x = [], _WIDTH - _RIGHT - 8
        for name, colour in reversed(entries):
            x -= 7 * len(name) + 30
            y = self._top + 14
            parts.append(f'<path d="M{x} {y - 4} h16" stroke="{colour}" stroke-width="3"/>')
            parts.append(f'<text x="{x + 22}" y="{y}" fill="{_INK}">{name}</text>')
        return parts

    def time_axis(self) -> list[str]:
        every = next(step for step in (10, 15, 30, 60, 120, 300) if self._seconds / step <= 14 or step == 300)
        bottom = self._top + self._height
        below = f'y="{bottom + 18:.1f}" fill="{_FAINT}" text-anchor="middle"'
        marks = range(0, int(self._seconds) + 1, every)
        parts = [f'<text x="{self.x(at):.1f}" {below}>{at} s</text>' for at in marks]
        parts.append(f'<path d="M{_LEFT} {bottom:.1f} H{_WIDTH - _RIGHT}" stroke="{_INK}" fill="none"/>')
        return parts
