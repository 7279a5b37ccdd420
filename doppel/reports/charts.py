"""Charts for HTML reports: lines, bars and heat maps as SVG, and bars in tables. No scripts, light and dark mode."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape

import msgspec

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 22, 48
_TICKS = 5
_MAX_POINTS = 400
_SMOOTHING = 25  # a smoothed point is the mean over this fraction of the curve
_CHARACTER_WIDTH = 8.6  # of a digit or Latin letter; in units of the drawing, like every length here
_LARGEST = 1e300  # larger values are not drawn: differences between them overflow
_CELL_WIDTH, _CELL_HEIGHT, _CELL_LEFT = 24, 24, 56

Point = tuple[float, float]

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
svg .bar { fill: var(--accent); } svg .bar.dim { opacity: .4; } svg .bar.reference { fill: var(--faint); }
svg text.series { fill: var(--accent); } svg text.reference { fill: var(--faint); }
svg .empty { fill: var(--rule); opacity: .5; }
table.bars { width: 100%; } table.bars td { padding-right: 1rem; white-space: nowrap; }
table.bars td:nth-child(2) { text-align: right; color: var(--ink); }
table.bars td:last-child { width: 70%; min-width: 10rem; padding-right: 0; vertical-align: middle; }
table.bars i { display: block; height: .8rem; min-width: 1px; border-radius: .15rem; background: var(--accent); }
table.bars tr.dropped i { background: var(--faint); opacity: .6; }
"""
"""Rules for everything drawn here; they use the colours --accent, --ink, --faint, --rule and --paper."""


class Bar(msgspec.Struct, frozen=True):
    """One bar of a chart: the label below it (may be empty), the name in its tooltip, and its height."""

    label: str
    name: str
    count: int


class TableBar(msgspec.Struct, frozen=True):
    """One row of `bar_table`.

    Attributes:
        label: text in the first column.
        count: length of the bar.
        offset: where the bar starts, in the unit of `count`.
        is_dropped: draw it in grey.
    """

    label: str
    count: int
    offset: int = 0
    is_dropped: bool = False


class Tick(msgspec.Struct, frozen=True):
    """A position on an axis and its label."""

    value: float
    label: str


class Scale:
    """Maps the values of one axis to positions, and chooses its ticks.

    Ticks stand at multiples of 1, 2, 2.5 or 5 times a power of ten. Labels have as many decimals as the step between
    two ticks needs, so they are always distinct.

    Args:
        values: everything to be shown, finite, at least one.
        start: position of the lowest value.
        end: position of the highest value.
        is_whole: values are counts; ticks only at whole numbers.
        is_rounded: the axis ends at a tick; otherwise with the last value.
        tick_count: about how many steps the axis has.
    """

    def __init__(
        self,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        is_whole: bool = False,
        is_rounded: bool = True,
        tick_count: int = _TICKS,
    ) -> None:
        values = list(values)
        low, high = min(values), max(values)
        size = max(abs(low), abs(high))
        if high - low <= 1e-9 * max(size, 1e-9):  # looks like a single value: leave room on both sides
            margin = size / 10 if size > 1e-9 else 0.1
            low, high = (low, low + 1) if is_whole else (low - margin, high + margin)
        step = _round_step((high - low) / tick_count, is_whole=is_whole)
        exact_low, exact_high = (Decimal(value) / step for value in (low, high))  # in steps
        tolerance = Decimal("1e-9")
        if is_rounded:
            first, last = math.floor(exact_low + tolerance), math.ceil(exact_high - tolerance)
            low, high = float(first * step), float(last * step)
        else:
            first, last = math.ceil(exact_low), math.floor(exact_high)
        self.low, self.high = low, high
        self._start, self._end = start, end
        self.ticks = _ticks(range(first, last + 1), step)

    def at(self, value: float) -> float:
        """The position of a value."""
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)


def line_chart(
    title: str, x_label: str, points: Iterable[Point], *, is_noisy: bool = False, show_values: bool = False
) -> str:
    """A line chart as a `<figure>`; empty text if there is no finite point.

    Args:
        title: caption.
        x_label: what the horizontal axis counts; it starts at 0, so that the charts of one run line up.
        points: (x, y), x ascending and not negative.
        is_noisy: draw the points faintly, and their moving mean on top.
        show_values: draw each point as a dot with a tooltip, and label the lowest.
    """
    finite = [(x, y) for x, y in points if abs(x) <= _LARGEST and abs(y) <= _LARGEST]
    if not finite:
        return ""
    y_scale = Scale((y for _, y in finite), _HEIGHT - _BOTTOM, _TOP)
    left = _left_margin(y_scale.ticks)
    x_scale = Scale([0, *(x for x, _ in finite)], left, _WIDTH - _RIGHT, is_whole=True, is_rounded=False)
    parts = [*_y_axis(y_scale, left), *(_x_tick(x_scale.at(tick.value), tick.label) for tick in x_scale.ticks)]
    parts.append(_x_title(x_label))
    if is_noisy:
        parts.append(_polyline(_thinned(finite), x_scale, y_scale, "raw"))
        parts.append(_polyline(_thinned(_smoothed(finite)), x_scale, y_scale, "line"))
    else:
        parts.append(_polyline(finite if show_values else _thinned(finite), x_scale, y_scale, "line"))
    if show_values or len(finite) == 1:
        parts += [_dot(x, y, x_scale, y_scale, x_label) for x, y in finite]
        parts.append(_lowest(finite, x_scale, y_scale))
    return _figure(title, parts, _HEIGHT)


def bar_chart(title: str, bars: Sequence[Bar], x_label: str = "", last_full: int | None = None) -> str:
    """A chart of counts as a `<figure>`; empty text if there are no bars.

    Args:
        title: caption.
        bars: from left to right.
        x_label: what the labels below the bars count.
        last_full: index of the last bar drawn in full colour; the ones after it are paler.
    """
    if not bars:
        return ""
    y_scale = Scale([0, *(bar.count for bar in bars)], _HEIGHT - _BOTTOM, _TOP, is_whole=True, tick_count=3)
    left = _left_margin(y_scale.ticks)
    slot = (_WIDTH - left - _RIGHT) / len(bars)
    parts = _y_axis(y_scale, left)
    for index, bar in enumerate(bars):
        kind = "bar dim" if last_full is not None and index > last_full else "bar"
        x = left + index * slot
        parts.append(
            _rect(kind, x + slot * 0.08, slot * 0.84, y_scale, bar.count, tooltip=f"{bar.name}: {bar.count:,}")
        )
        if bar.label:
            parts.append(_x_tick(x + slot / 2, bar.label))
    parts.append(_x_title(x_label))
    return _figure(title, parts, _HEIGHT)


def grouped_bar_chart(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Shares of two series next to each other, as a `<figure>`; empty text if there are no labels.

    Args:
        title: caption.
        labels: below each group; shortened where there is no room.
        series: by name, first the reference; a share between 0 and 1 for each label.
    """
    if not labels:
        return ""
    percent = {name: [100 * share for share in shares] for name, shares in series.items()}
    y_scale = Scale(
        [0, *(share for shares in percent.values() for share in shares)], _HEIGHT - _BOTTOM, _TOP + 12, tick_count=3
    )
    left = _left_margin(y_scale.ticks)
    slot = (_WIDTH - left - _RIGHT) / len(labels)
    parts = _y_axis(y_scale, left, "%")
    width = slot * 0.84 / len(percent)
    for number, (name, shares) in enumerate(percent.items()):
        kind = "series" if number else "reference"
        for index, share in enumerate(shares):
            x = left + index * slot + slot * 0.08 + number * width
            parts.append(
                _rect(f"bar {kind}", x, width, y_scale, share, tooltip=f"{name}, {labels[index]}: {share:.0f}%")
            )
        parts.append(f'<text class="{kind}" x="{left + 110 * number}" y="16">■ {escape(name)}</text>')
    for index, label in enumerate(labels):
        parts.append(_x_tick(left + (index + 0.5) * slot, _shortened(label, slot)))
    return _figure(title, parts, _HEIGHT - 20)


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[tuple[str, str]], counts: Mapping[tuple[int, int], int]
) -> str:
    """A grid of cells, the darker the larger the count, as a `<figure>`.

    Args:
        title: caption.
        rows: label of each row.
        columns: label (may be empty) and name for the tooltip, of each column.
        counts: by (row, column).
    """
    largest = max(counts.values(), default=0) or 1
    parts = []
    for row, row_name in enumerate(rows):
        y = row * _CELL_HEIGHT
        parts.append(f'<text x="{_CELL_LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(row_name)}</text>')
        for column, (_, column_name) in enumerate(columns):
            count = counts.get((row, column), 0)
            fill = f'class="bar" opacity="{0.08 + 0.92 * count / largest:.2f}"' if count else 'class="empty"'
            tooltip = escape(f"{row_name} {column_name} · {count:,}")
            parts.append(
                f'<rect {fill} x="{_CELL_LEFT + column * _CELL_WIDTH}" y="{y}" width="{_CELL_WIDTH - 2}" '
                f'height="{_CELL_HEIGHT - 2}" rx="3"><title>{tooltip}</title></rect>'
            )
    y = len(rows) * _CELL_HEIGHT + 16
    parts += [
        f'<text x="{_CELL_LEFT + (column + 0.5) * _CELL_WIDTH:.0f}" y="{y}" text-anchor="middle">{escape(label)}</text>'
        for column, (label, _) in enumerate(columns)
        if label
    ]
    return _figure(title, parts, y + 8)


def bar_table(rows: Iterable[TableBar], whole: int) -> str:
    """A table of labels, counts and horizontal bars; a bar as long as `whole` fills the column."""
    body = "".join(_row(bar, whole) for bar in rows)
    return f'<div class="wide"><table class="bars"><tbody>{body}</tbody></table></div>'


def _row(bar: TableBar, whole: int) -> str:
    start, width = (100 * part / max(1, whole) for part in (bar.offset, bar.count))
    kind = ' class="dropped"' if bar.is_dropped else ""
    return (
        f"<tr{kind}><td>{escape(bar.label)}</td><td>{bar.count:,}</td>"
        f'<td><i style="margin-left:{start:.2f}%;width:{width:.2f}%"></i></td></tr>'
    )


def _round_step(step: float, *, is_whole: bool) -> Decimal:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `step`; at least 1 for whole numbers."""
    exponent = math.floor(math.log10(step))
    candidates = (Decimal(factor).scaleb(exponent) for factor in ("1", "2", "2.5", "5", "10", "20"))
    return next(
        one
        for one in (max(candidate, Decimal(1)) if is_whole else candidate for candidate in candidates)
        if float(one) >= step * (1 - 1e-9) and (not is_whole or one == one.to_integral_value())
    )


def _ticks(numbers: range, step: Decimal) -> list[Tick]:
    """Ticks at multiples of a step. Exponents only below 0.000001 and from ten thousand million on."""
    values = [number * step for number in numbers]
    largest = max(map(abs, values), default=Decimal(0))
    exponent = largest.adjusted() if largest and not Decimal("1e-6") <= largest < Decimal("1e10") else 0
    decimals = max(0, exponent - int(step.normalize().as_tuple().exponent))
    suffix = f"e{exponent}" if exponent else ""
    return [
        Tick(float(value), f"{value.scaleb(-exponent):,.{decimals}f}{suffix}" if value else f"{0:.{decimals}f}")
        for value in values
    ]


def _left_margin(ticks: Sequence[Tick]) -> float:
    return max(_LEFT, 16 + _CHARACTER_WIDTH * max(len(tick.label) for tick in ticks))


def _y_axis(scale: Scale, left: float, unit: str = "") -> list[str]:
    parts = []
    for tick in scale.ticks:
        y = scale.at(tick.value)
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 5:.1f}" text-anchor="end">{tick.label}{unit}</text>')
    return parts


def _x_tick(x: float, label: str) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{escape(label)}</text>'


def _x_title(title: str) -> str:
    return f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(title)}</text>' if title else ""


def _rect(kind: str, x: float, width: float, scale: Scale, value: float, *, tooltip: str) -> str:
    y = scale.at(value)
    return (
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{scale.at(0) - y:.1f}">'
        f"<title>{escape(tooltip)}</title></rect>"
    )


def _polyline(points: Sequence[Point], x_scale: Scale, y_scale: Scale, kind: str) -> str:
    path = " ".join(f"{x_scale.at(x):.1f},{y_scale.at(y):.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _dot(x: float, y: float, x_scale: Scale, y_scale: Scale, x_label: str) -> str:
    center = f'cx="{x_scale.at(x):.1f}" cy="{y_scale.at(y):.1f}"'
    return f'<circle class="dot" {center} r="5"><title>{escape(x_label)} {x:,g}: {y:.4g}</title></circle>'


def _lowest(points: Sequence[Point], x_scale: Scale, y_scale: Scale) -> str:
    """The value of the lowest point, above it."""
    x, y = min(points, key=lambda point: point[1])
    place = x_scale.at(x)
    anchor = "start" if place < _WIDTH / 4 else "end" if place > _WIDTH * 3 / 4 else "middle"
    return f'<text class="lowest" x="{place:.1f}" y="{y_scale.at(y) - 11:.1f}" text-anchor="{anchor}">{y:.4g}</text>'


def _smoothed(points: Sequence[Point]) -> list[Point]:
    """The centred moving mean, over fewer points at the ends."""
    half = len(points) // _SMOOTHING // 2
    totals = [0.0]
    for _, y in points:
        totals.append(totals[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        start, end = max(0, index - half), min(len(points), index + half + 1)
        smooth.append((x, (totals[end] - totals[start]) / (end - start)))
    return smooth


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most about 400 points: means of neighbours, so that the report of a long training stays small."""
    size = -(-len(points) // _MAX_POINTS)
    if size == 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _shortened(label: str, width: float) -> str:
    """A label cut to a width, with an ellipsis; East Asian characters are twice as wide."""
    left = width / _CHARACTER_WIDTH
    for index, character in enumerate(label):
        left -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if left < (0 if index == len(label) - 1 else 1):
            return label[:index] + "…"
    return label


def _figure(title: str, parts: Iterable[str], height: int) -> str:
    label = escape(title)
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg></figure>'
    )
