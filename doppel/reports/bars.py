"""Bars in a table and columns in a chart, for pages like report.html. Knows what is drawn only by name and number."""

from collections.abc import Iterable, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 14, 48

STYLE = """table.bars { width: 100%; } table.bars td { padding-right: 1rem; white-space: nowrap; }
table.bars td:nth-child(2) { text-align: right; color: var(--ink); }
table.bars td:last-child { width: 70%; min-width: 10rem; padding-right: 0; vertical-align: middle; }
table.bars i { display: block; height: .8rem; min-width: 1px; border-radius: .15rem; background: var(--accent); }
table.bars tr.lost i { background: var(--faint); opacity: .6; }
svg .bar { fill: var(--accent); } svg .bar.other { opacity: .4; } svg .none { fill: var(--rule); opacity: .5; }
"""


def share_table(rows: Sequence[tuple[str, int]], whole: int) -> str:
    """A bar for each name and number; one as large as `whole` is as wide as there is room."""
    return bar_table(bar_row(name, count, whole) for name, count in rows)


def bar_table(rows: Iterable[str]) -> str:
    """Rows that `bar_row` made."""
    return f'<div class="wide"><table class="bars"><tbody>{"".join(rows)}</tbody></table></div>'


def bar_row(name: str, count: int, whole: int, *, before: int = 0, is_lost: bool = False) -> str:
    """A bar beside its name and number; `before` leaves room on its left."""
    start, width = (100 * part / max(1, whole) for part in (before, count))
    kind = ' class="lost"' if is_lost else ""
    return (
        f"<tr{kind}><td>{escape(name)}</td><td>{count:,}</td>"
        f'<td><i style="margin-left:{start:.2f}%;width:{width:.2f}%"></i></td></tr>'
    )


def columns_chart(
    title: str, columns: Sequence[tuple[str, str, int]], across: str = "", limit: int | None = None
) -> str:
    """A column chart.

    Args:
        title: above it.
        columns: the name below, what the column tells when pointed at, and its height.
        across: what the names count.
        limit: number of the last column that is wholly or partly within a limit; the ones after it are fainter.
    """
    if not columns:
        return ""
    top = _round_up(max(count for *_, count in columns))
    slot = (_WIDTH - _LEFT - _RIGHT) / len(columns)
    tall = _HEIGHT - _TOP - _BOTTOM
    parts = []
    for value in (0, top // 2, top) if top > 1 else (0, top):
        y = _HEIGHT - _BOTTOM - tall * value / top
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{value:,}</text>')
    for place, (name, told, count) in enumerate(columns):
        x, height = _LEFT + place * slot, tall * count / top
        kind = "bar other" if limit is not None and place > limit else "bar"
        parts.append(
            f'<rect class="{kind}" x="{x + slot * 0.08:.2f}" y="{_HEIGHT - _BOTTOM - height:.1f}" '
            f'width="{slot * 0.84:.2f}" height="{height:.1f}"><title>{escape(told)}: {count:,}</title></rect>'
        )
        if name:
            y = _HEIGHT - _BOTTOM + 20
            parts.append(f'<text x="{x + slot / 2:.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(across)}</text>')
    return figure(title, "".join(parts), _HEIGHT)


def _round_up(count: int) -> int:
    """The next of 1, 2, 4, 6, 10 times a power of ten: the height of a chart, whose half is whole too."""
    power = int("1" + "0" * (len(str(count)) - 1))
    return next(factor * power for factor in (1, 2, 4, 6, 10) if factor * power >= count)


def figure(title: str, drawing: str, height: int) -> str:
    """A drawing with its title; it is 640 wide."""
    label = escape(title)
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{label}">{drawing}</svg></figure>'
    )
