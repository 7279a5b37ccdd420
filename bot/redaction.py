"""Keeps secrets out of the log: a filter for loggers and handlers. Knows no platform."""

import logging

_formatter = logging.Formatter()


class Redaction(logging.Filter):
    """Blacks out secrets in a record's message and traceback, whoever logged them and at whatever level.

    On a handler it covers everything that reaches the handler; on a logger only what that logger itself logs.
    """

    def __init__(self, *secrets: str) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if secret)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites the record where a secret shows; always lets it pass."""
        message = record.getMessage()
        if (clean := self.redact(message)) != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            # Formatted here and not later: the exception's own text is the usual place for an URL with a token.
            record.exc_text = _formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.redact(record.exc_text)
        return True

    def redact(self, text: str) -> str:
        """The text with every secret replaced by three dots."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text
