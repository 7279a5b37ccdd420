"""The log keeps secrets to itself and speaks the owner's time."""

import io
import logging
from zoneinfo import ZoneInfo

import pytest

from bot.logs import NOISY_LOGGERS, LineFormatter, Redactor, set_up_log
from bot.platforms.telegram import PLUGIN

TOKEN = "123456:" + "made-up"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(ZoneInfo("Asia/Shanghai"), [TOKEN, ""]))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


def test_line_is_short_and_in_the_owners_zone(logger: logging.Logger, stream: io.StringIO) -> None:
    record = logger.makeRecord("x", logging.INFO, "f", 1, "hello %s", ("you",), None)
    record.created = 1_772_452_800.0
    logger.handle(record)
    logger.warning("careful")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2026-03-02 20:00:00 hello you"
    assert lines[1].endswith(" warning: careful")


def test_token_is_blacked_out_in_arguments_and_tracebacks(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.info("GET https://api.telegram.org/bot%s/getMe", TOKEN)
    try:
        int(f"https://api.telegram.org/bot{TOKEN}/x")
    except ValueError:
        logger.exception("failed")
    assert TOKEN not in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert stream.getvalue().count("bot…/") >= 2


def test_everyday_lines_of_libraries_are_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    noisy = [logging.getLogger(name) for name in (*NOISY_LOGGERS, *PLUGIN.noisy_loggers)]
    levels = [logger.level for logger in noisy]
    try:
        set_up_log(ZoneInfo("UTC"), {"TELEGRAM_TOKEN": TOKEN}, [PLUGIN], debug=False)
        logging.getLogger("httpx").info("HTTP Request: %s", TOKEN)
        logging.getLogger("httpx").warning("trouble with %s", TOKEN)
        logging.getLogger("bot.app").info("mine")
        root.handlers[0].flush()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for logger, before in zip(noisy, levels, strict=True):
            logger.setLevel(before)
    lines = capsys.readouterr().err.splitlines()
    assert [line[20:] for line in lines] == ["warning: trouble with …", "mine"]


def test_a_handler_with_the_filter_prints_no_secret() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redactor(TOKEN))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("GET %s", f"https://example.org/bot{TOKEN}/getMe")
    logger.info("as it is: " + TOKEN)
    try:
        int(f"/bot{TOKEN}/getMe")
    except ValueError:
        logger.exception("failed")
    assert "made-up" not in stream.getvalue()
    assert "https://example.org/bot…/getMe" in stream.getvalue()
    assert "'/bot…/getMe'" in stream.getvalue()


def test_records_without_a_secret_stay_as_they_are() -> None:
    record = logging.LogRecord("name", logging.INFO, "file", 1, "%s apples", (3,), None)
    assert Redactor(TOKEN, "").filter(record)
    assert (record.msg, record.args) == ("%s apples", (3,))
