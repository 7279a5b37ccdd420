"""report.html: one self-contained page, without scripts, made of sections."""

from collections.abc import Iterable, Sequence
from html import escape

import msgspec

from doppel.i18n import language
from doppel.reports.charts import STYLE as CHART_STYLE

REPORT_PAGE = "report.html"

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1e; --faint: #6b6b70; --rule: #e3e3e6; --accent: #2563c9; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161618; --ink: #ececee; --faint: #9a9aa2; --rule: #2e2e33; --accent: #7fb0ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
h1 { font-size: 1.6rem; margin: 0; }
h1 + p { margin: .25rem 0 0; color: var(--faint); }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem 3rem; margin: 0; }
.figures dt { color: var(--faint); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; }
th, td { text-align: left; padding: .35rem 2rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 400; color: var(--faint); font-size: .85rem; }
td { font-variant-numeric: tabular-nums; }
td:last-child { color: var(--faint); }
"""
"""The colours that charts use, and the looks of everything else."""


class Section(msgspec.Struct, frozen=True):
    """A part of the page. `body` is HTML, as made by `figures`, `charts` and `table`."""

    title: str
    body: str


def page(title: str, subtitle: str, sections: Iterable[Section], style: str = "") -> str:
    """The whole page. `title` and `subtitle` are plain text; `style` is more CSS for the sections."""
    return (
        f'<!doctype html>\n<html lang="{language()}">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{CHART_STYLE}{style}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><p>{escape(subtitle)}</p>\n{_html_of(sections)}</body>\n</html>\n"
    )


def with_sections(
    old_page: str, title: str, sections: Iterable[Section], style: str = "", *, mark: str = "added"
) -> str:
    """A page with sections appended; they replace the ones appended earlier under the same mark.

    Args:
        old_page: a page made by `page`; if empty, a new one is made.
        title: heading above the appended sections.
        sections: to append.
        style: more CSS for them.
        mark: identifies these sections.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- {mark} end -->"
    head, found, tail = old_page.partition(begin)
    if found:
        tail = tail.partition(end)[2]
    if CHART_STYLE not in head + tail:  # written by an earlier version
        style = CHART_STYLE + style
    block = f"{begin}<style>{style}</style><h1>{escape(title)}</h1>\n{_html_of(sections)}{end}"
    if found:
        return head + block + tail
    if "</body>" in old_page:
        return old_page.replace("</body>", f"{block}</body>", 1)
    return page(title, "", []).replace(f"<h1>{escape(title)}</h1>", "", 1).replace("</body>", f"{block}</body>", 1)


def figures(values: Sequence[tuple[str, str]]) -> str:
    """A row of large numbers, each with a label."""
    return f'<dl class="figures">{"".join(_figure(name, value) for name, value in values)}</dl>'


def charts(figures: Iterable[str]) -> str:
    """Charts made by `doppel.reports.charts`, next to each other where there is room."""
    return f'<div class="charts">{"".join(figures)}</div>'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_of(sections: Iterable[Section]) -> str:
    return "".join(f"<section><h2>{escape(section.title)}</h2>{section.body}</section>\n" for section in sections)


def _figure(name: str, value: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
