"""Line charts as SVG, drawn from points: no library, no script, readable in light and dark. Knows no training."""

import math
from collections.abc import Sequence
from html import escape

import msgspec

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 22, 48
_MOST_POINTS = 400
_TICKS = 5
_SMOOTH = 25  # a smoothed point is the mean over this part of the whole curve

Point = tuple[float, float]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One chart.

    Attributes:
        title: above it.
        across: what the horizontal axis counts.
        points: (x, y), x ascending and not negative.
        noisy: draw the points faintly, and their moving mean over them.
        marked: show each point as a dot that tells its value, and the value of the lowest.
    """

    title: str
    across: str
    points: Sequence[Point]
    noisy: bool = False
    marked: bool = False


def draw(curve: Curve) -> str:
    """The chart as a `<figure>`; empty text where there is no finite point to draw."""
    points = [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return ""
    across = _Scale([0, *(x for x, _ in points)], _LEFT, _WIDTH - _RIGHT, whole=True)  # charts of one run line up
    up = _Scale([y for _, y in points], _HEIGHT - _BOTTOM, _TOP, whole=False)
    parts = [*_grid(across, up, curve.across)]
    if curve.noisy:
        parts.append(_line(_thinned(points), across, up, "raw"))
        parts.append(_line(_thinned(_smoothed(points)), across, up, "line"))
    else:
        parts.append(_line(points if curve.marked else _thinned(points), across, up, "line"))
    if curve.marked or len(points) == 1:
        parts += [_dot(x, y, across, up, curve.across) for x, y in points]
        parts.append(_lowest(points, across, up))
    label = escape(curve.title)
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg></figure>'
    )


STYLE = """
figure { margin: 0; }
figcaption { font-weight: 600; margin-bottom: .25rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 15px system-ui, sans-serif; fill: var(--faint); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line, svg .raw { fill: none; stroke: var(--accent); stroke-linejoin: round; stroke-linecap: round; }
svg .line { stroke-width: 2; }
svg .raw { stroke-width: 1; opacity: .35; }
svg .lowest { fill: var(--ink); }
svg .dot { fill: var(--accent); stroke: var(--paper); stroke-width: 2; }
"""
"""What the charts look like; needs the colours --accent, --ink, --faint, --rule and --paper."""


class _Scale:
    """Values to positions along one axis, and where its ticks are."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, whole: bool) -> None:
        low, high = min(values), max(values)
        size = max(abs(low), abs(high))
        if high - low <= 1e-9 * max(size, 1e-9):  # all the same, as far as a drawing shows: room on both sides
            margin = size / 10 if size > 1e-9 else 0.1
            low, high = low - margin, high + margin
        step = _nice_step((high - low) / _TICKS)
        if whole:  # counts: ticks at whole numbers, the axis ends with the last value
            step = max(1.0, math.ceil(step))
        else:
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        self._low, self._high, self._start, self._end = low, high, start, end
        ticks = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        self.ticks = [(number * step, _number(number * step, step)) for number in ticks]

    def at(self, value: float) -> float:
        """Position of a value, in units of the drawing."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)


def _nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _grid(across: _Scale, up: _Scale, title: str) -> list[str]:
    parts = []
    for value, text in up.ticks:
        y = up.at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{text}</text>')
    for value, text in across.ticks:
        x = across.at(value)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(title)}</text>')
    return parts


def _line(points: Sequence[Point], across: _Scale, up: _Scale, kind: str) -> str:
    path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _dot(x: float, y: float, across: _Scale, up: _Scale, title: str) -> str:
    told = f"{escape(title)} {x:,g}: {y:.4g}"
    return f'<circle class="dot" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="5"><title>{told}</title></circle>'


def _lowest(points: Sequence[Point], across: _Scale, up: _Scale) -> str:
    x, y = min(points, key=lambda point: point[1])
    place = across.at(x)
    anchor = "start" if place < _WIDTH / 4 else "end" if place > _WIDTH * 3 / 4 else "middle"
    return f'<text class="lowest" x="{place:.1f}" y="{up.at(y) - 11:.1f}" text-anchor="{anchor}">{y:.4g}</text>'


def _smoothed(points: Sequence[Point]) -> list[Point]:
    """The moving mean, centred; shorter at the ends."""
    half = len(points) // _SMOOTH // 2
    totals = [0.0]
    for _, y in points:
        totals.append(totals[-1] + y)
    smooth = []
    for at, (x, _) in enumerate(points):
        start, end = max(0, at - half), min(len(points), at + half + 1)
        smooth.append((x, (totals[end] - totals[start]) / (end - start)))
    return smooth


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most about 400 points: means of neighbours, so that a long training's report stays small."""
    size = -(-len(points) // _MOST_POINTS)
    if size == 1:
        return points
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _number(value: float, step: float) -> str:
    """A tick's text, with the digits that tell it from the next one."""
    if step < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e") if value else "0"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, decimals) != step:  # 2.5 and its powers need one more
        decimals += 1
    return f"{value:,.{decimals}f}"
