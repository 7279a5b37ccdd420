"""Converts HTML to the plain text that a person sees."""

from html.parser import HTMLParser

_BLOCK_TAGS = frozenset(("p", "div", "li", "blockquote", "tr", "ul", "ol", "table", "h1", "h2", "h3", "h4"))
_HIDDEN_TAGS = frozenset(("script", "style", "head", "title"))


def html_text(html: str) -> str:
    """The text, with line breaks where tags make them; the `alt` texts of images (emoji) count as text."""
    if "<" not in html and "&" not in html:
        return html
    parser = _TextParser()
    parser.feed(html)
    parser.close()
    lines = [" ".join(line.split(" ")).strip() for line in "".join(parser.parts).split("\n")]
    return "\n".join(lines).strip("\n")


class _TextParser(HTMLParser):
    """Collects text and line breaks in `parts`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN_TAGS:
            self._hidden_depth += 1
        elif tag == "br":
            self.parts.append("\n")
        elif tag == "img" and not self._hidden_depth:
            self.parts.append(dict(attrs).get("alt") or "")
        elif tag in _BLOCK_TAGS:
            self._new_line()

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN_TAGS:
            self._hidden_depth = max(0, self._hidden_depth - 1)
        elif tag == "p":
            self.parts.append("\n\n")
        elif tag in _BLOCK_TAGS:
            self._new_line()

    def handle_data(self, data: str) -> None:
        if not self._hidden_depth:
            self.parts.append(data.replace("\r", "").replace("\n", " ") if data.strip() else data.replace("\n", ""))

    def parse_html_declaration(self, i: int) -> int:
        """As the library's, but `<![` before anything else than a name is a comment, not an error."""
        try:
            return super().parse_html_declaration(i)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def _new_line(self) -> None:
        if self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")
