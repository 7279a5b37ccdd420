"""The messages in QQ's `.mht` export: one HTML table in a MIME container, followed by the pictures.

Streams row by row and never looks at the pictures. Does not know whose words they are, only how they are painted.
"""

import html
import re
from collections.abc import Iterator

from doppel.i18n import tr
from training.archives.formats.html_text import html_text
from training.archives.formats.text_lines import text_lines
from training.archives.qq import lines as qq_lines
from training.archives.source_tree import Tree

_MARKS = ("tencent msgmgr", "tencent im message")
_PART = re.compile(r"content-type\s*:\s*(?P<type>[\w/+.-]+)", re.IGNORECASE)
_BOUNDARY = re.compile(r"boundary\s*=\s*\"?(?P<text>[^\"\s;]+)", re.IGNORECASE)
_ROW_END = re.compile(r"</tr\s*>", re.IGNORECASE)
_MESSAGE = re.compile(
    r"<div[^>]*\bcolor:\s*(?P<color>#[0-9a-f]{6})[^>]*>\s*<div[^>]*>(?P<name>.*?)</div>(?P<clock>[^<]*)</div>(?P<body>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PICTURE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_OWN = {"#42b475": True, "#006efe": False}
_LONGEST_ROW = 1 << 22
PICTURE = "[图片]"


def is_mht(text: str) -> bool:
    """Whether a file that begins like this was saved by QQ's message manager."""
    head = text[:600].lower()
    return "multipart/related" in head and any(mark in head for mark in _MARKS)


def mht_records(tree: Tree, file: str) -> Iterator[tuple[int, qq_lines.Head, list[str]]]:
    """Line number, head and words of every row, as the text export has them; a picture is `[图片]`."""
    for number, row in _rows(tree, file):
        if match := _MESSAGE.search(row):
            is_own = _OWN.get(match["color"].lower())
            head = qq_lines.painted_heading(_name(match["name"]), html.unescape(match["clock"]), is_own=is_own)
            if head is None:
                tree.bad(file, tr("line {number}", number=number), tr("missing {key}", key="'time'"))
            else:
                yield number, head, [html_text(_PICTURE.sub(PICTURE, match["body"]))]
            continue
        text = html_text(row).strip(" \n\u00a0")
        if day := qq_lines.divider(text):
            yield number, day, []
        elif title := qq_lines.title(text):
            yield number, title, []
        elif text and not (qq_lines.is_rule(text) or qq_lines.is_preamble(text)):
            tree.bad(file, tr("line {number}", number=number), tr("text before the first message"))


def _name(text: str) -> str:
    return html_text(text).replace("\u00a0", " ").strip()


def _rows(tree: Tree, file: str) -> Iterator[tuple[int, str]]:
    """The rows of the table, each with the number of the line that it ends in."""
    boundary, in_header, is_html, held, number = "", False, False, "", 0
    with tree.open(file) as stream:
        for number, line in text_lines(stream, b""):  # the container says that it is UTF-8
            if not boundary:
                if match := _BOUNDARY.search(line):
                    boundary = "--" + match["text"]
            elif line.startswith(boundary):
                in_header, is_html = True, False
            elif in_header:
                if match := _PART.match(line):
                    is_html = match["type"].lower() == "text/html"
                in_header = bool(line.strip())
                continue
            if not is_html:
                continue
            held = f"{held}{line}\n" if held else f"{line}\n"
            *rows, held = _ROW_END.split(held)
            yield from ((number, row) for row in rows)
            if len(held) > _LONGEST_ROW:
                tree.bad(file, tr("line {number}", number=number), tr("message too long"))
                held = ""
    if "<tr" in held.lower():
        tree.bad(file, tr("line {number}", number=number), tr("ends unexpectedly"))
