"""Secrets in messages, arguments and tracebacks of a log."""

import io
import logging

from bot.redaction import Redaction

SECRET = "123456:AAnot-a-real-token"


def test_a_handler_with_the_filter_prints_no_secret() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redaction(SECRET))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("GET %s", f"https://example.org/bot{SECRET}/getMe")
    logger.info("as it is: " + SECRET)
    try:
        int(f"/bot{SECRET}/getMe")
    except ValueError:
        logger.exception("failed")
    assert "not-a-real" not in stream.getvalue()
    assert "https://example.org/bot…/getMe" in stream.getvalue()
    assert "'/bot…/getMe'" in stream.getvalue()


def test_records_without_a_secret_stay_as_they_are() -> None:
    record = logging.LogRecord("name", logging.INFO, "file", 1, "%s apples", (3,), None)
    assert Redaction(SECRET, "").filter(record)
    assert (record.msg, record.args) == ("%s apples", (3,))
