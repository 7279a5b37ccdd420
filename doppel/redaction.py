"""Keeps secrets out of everything that is printed or logged, whichever library prints it."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO, cast
from urllib.parse import quote, quote_plus

from doppel.errors import UserError
from doppel.secrets import read_secret

_MIN_LENGTH = 4
"""Shorter values are not replaced: they would be cut out of ordinary words, and are no secrets."""


def redactor_for(environ: Mapping[str, str], variables: Iterable[str]) -> "Redactor":
    """A redactor for the secrets in these variables and their files; files that cannot be read are skipped."""
    values = []
    for variable in variables:
        values.append(environ.get(variable, ""))
        try:
            values.append(read_secret(variable, environ))
        except UserError:
            continue
    return Redactor(*values)


class Redactor(logging.Filter):
    """Removes secrets from texts, also where they are quoted for a URL or escaped; as a filter, from log records."""

    def __init__(self, *secrets: str) -> None:
        super().__init__()
        forms = {form for secret in secrets for form in _forms(secret.strip())}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def redact(self, text: str) -> str:
        """Replaces every secret in the text by an ellipsis."""
        return text if self._pattern is None else self._pattern.sub("…", text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites a record that contains a secret, also its traceback; never drops it."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - wrong arguments: logging reports them when it formats the record
            return True
        if (clean := self.redact(message)) != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            # Formatted here and not later: exceptions often contain a URL with a token.
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self.redact(record.stack_info)
        return True

    def create_record(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """A record without secrets, for `logging.setLogRecordFactory`: so no handler of any library ever sees one."""
        record = logging.LogRecord(*args, **kwargs)
        self.filter(record)
        return record


def redact_stderr(redactor: Redactor) -> None:
    """Removes secrets from all that is written to `sys.stderr` from here on: tracebacks, warnings, status lines."""
    inner = sys.stderr.inner if isinstance(sys.stderr, _RedactedStream) else sys.stderr
    sys.stderr = cast(TextIO, _RedactedStream(inner, redactor))


class _RedactedStream(io.TextIOBase):
    """A text stream that passes on everything but secrets. A secret must not be split over two writes."""

    def __init__(self, inner: TextIO, redactor: Redactor) -> None:
        self.inner = inner
        self._redactor = redactor

    def write(self, text: str) -> int:
        self.inner.write(self._redactor.redact(text))
        return len(text)

    def flush(self) -> None:
        self.inner.flush()

    def isatty(self) -> bool:
        return self.inner.isatty()

    def fileno(self) -> int:
        return self.inner.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """The stream below belongs to the process."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.inner.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.inner.errors

    @property
    def buffer(self) -> Any:
        return self.inner.buffer


def _forms(secret: str) -> set[str]:
    """How a secret may appear in a text."""
    if len(secret) < _MIN_LENGTH:
        return set()
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    quoted |= {re.sub(r"%[0-9A-F]{2}", lambda escape: escape[0].lower(), text) for text in quoted}
    escaped = {repr(secret)[1:-1], json.dumps(secret)[1:-1], ascii(secret)[1:-1]}
    return {secret, *quoted, *escaped}
