"""The messages in QQ's `.mht` export: one HTML table in a MIME container, followed by the pictures.

Streams row by row and never looks at the pictures. Does not know whose words they are, only how they are painted.
"""

import html
import re
from collections.abc import Iterator

from doppel.i18n import tr
from training.archives.formats.html_text import html_text
from training.archives.formats.text_lines import text_lines
from training.archives.qq import headings
from training.archives.source_tree import SourceTree

_SIGNATURES = ("tencent msgmgr", "tencent im message")
_CONTENT_TYPE = re.compile(r"content-type\s*:\s*(?P<type>[\w/+.-]+)", re.IGNORECASE)
_BOUNDARY = re.compile(r"boundary\s*=\s*\"?(?P<text>[^\"\s;]+)", re.IGNORECASE)
_ROW_END = re.compile(r"</tr\s*>", re.IGNORECASE)
_MESSAGE = re.compile(
    r"<div[^>]*\bcolor:\s*(?P<color>#[0-9a-f]{6})[^>]*>\s*<div[^>]*>(?P<name>.*?)</div>(?P<clock>[^<]*)</div>(?P<body>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PICTURE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_OWNER_COLOURS = {"#42b475": True, "#006efe": False}
_MAX_ROW_LENGTH = 1 << 22
PICTURE = "[图片]"


def is_mht(text: str) -> bool:
    """Whether a file with this head was saved by QQ's message manager."""
    head = text[:600].lower()
    return "multipart/related" in head and any(mark in head for mark in _SIGNATURES)


def mht_records(tree: SourceTree, file: str) -> Iterator[tuple[int, headings.Line, list[str]]]:
    """Yields line number, head and text of every row, in the form of the text export; a picture is `[图片]`."""
    for number, row in _rows(tree, file):
        if match := _MESSAGE.search(row):
            is_own = _OWNER_COLOURS.get(match["color"].lower())
            head = headings.coloured_heading(_sender_name(match["name"]), html.unescape(match["clock"]), is_own=is_own)
            if head is None:
                tree.report_bad(file, tr("line {number}", number=number), tr("missing {key}", key="'time'"))
            else:
                yield number, head, [html_text(_PICTURE.sub(PICTURE, match["body"]))]
            continue
        text = html_text(row).strip(" \n\u00a0")
        if day := headings.date_line(text):
            yield number, day, []
        elif title := headings.title_line(text):
            yield number, title, []
        elif text and not (headings.is_rule(text) or headings.is_preamble(text)):
            tree.report_bad(file, tr("line {number}", number=number), tr("text before the first message"))


def _sender_name(text: str) -> str:
    return html_text(text).replace("\u00a0", " ").strip()


def _rows(tree: SourceTree, file: str) -> Iterator[tuple[int, str]]:
    """Yields the rows of the HTML table, each with the number of its last line."""
    boundary, in_header, is_html, pending, number = "", False, False, "", 0
    with tree.open(file) as stream:
        for number, line in text_lines(stream, b""):  # always UTF-8
            if not boundary:
                if match := _BOUNDARY.search(line):
                    boundary = "--" + match["text"]
            elif line.startswith(boundary):
                in_header, is_html = True, False
            elif in_header:
                if match := _CONTENT_TYPE.match(line):
                    is_html = match["type"].lower() == "text/html"
                in_header = bool(line.strip())
                continue
            if not is_html:
                continue
            pending = f"{pending}{line}\n" if pending else f"{line}\n"
            *rows, pending = _ROW_END.split(pending)
            yield from ((number, row) for row in rows)
            if len(pending) > _MAX_ROW_LENGTH:
                tree.report_bad(file, tr("line {number}", number=number), tr("message too long"))
                pending = ""
    if "<tr" in pending.lower():
        tree.report_bad(file, tr("line {number}", number=number), tr("ends unexpectedly"))
