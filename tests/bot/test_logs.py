"""The log keeps secrets to itself and speaks the owner's time."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from bot.logs import NOISY_LOGGERS, JsonFormatter, LineFormatter, LogFormat, set_up_log
from bot.platforms.telegram import PLUGIN
from doppel.plugins import PlatformPlugin, PlatformSettings, installed_platforms
from doppel.redaction import Redactor

TOKEN = "123456:" + "made-up"
NOISY_OF_PLATFORMS = {name for plugin in installed_platforms().plugins.values() for name in plugin.noisy_loggers}


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(ZoneInfo("Asia/Shanghai"), Redactor(TOKEN)))
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


def test_json_is_one_object_a_line_in_utc(stream: io.StringIO) -> None:
    secret = 'quo"ted\\secret'
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(Redactor(secret)))
    logger = logging.Logger("bot.app")
    logger.addHandler(handler)
    record = logger.makeRecord("bot.app", logging.INFO, "f", 1, "hello %s,\n你好 \udc80", (secret,), None)
    record.created = 1_772_452_800.25
    logger.handle(record)
    try:
        int(secret)
    except ValueError:
        logger.exception("failed", stack_info=True)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first == {
        "time": "2026-03-02T12:00:00.250+00:00",
        "level": "info",
        "logger": "bot.app",
        "message": "hello …,\n你好 \udc80",
    }
    assert (second["level"], second["message"]) == ("error", "failed")
    assert second["exception"].startswith("Traceback")
    assert second["stack"].startswith("Stack")
    assert "secret" not in second["exception"].replace("int(secret)", "")


@pytest.fixture
def log() -> Iterator[Callable[..., None]]:
    """`set_up_log`, undone after the test."""
    root = logging.getLogger()
    handlers, level, factory = root.handlers[:], root.level, logging.getLogRecordFactory()
    noisy = [logging.getLogger(name) for name in (*NOISY_LOGGERS, *NOISY_OF_PLATFORMS)]
    levels = [logger.level for logger in noisy]
    yield partial(set_up_log, ZoneInfo("UTC"))
    logging.captureWarnings(False)
    logging.setLogRecordFactory(factory)
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, before in zip(noisy, levels, strict=True):
        logger.setLevel(before)


def test_everyday_lines_of_libraries_are_silenced(log: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    log({"TELEGRAM_TOKEN": TOKEN}, [PLUGIN], debug=False)
    logging.getLogger("httpx").info("HTTP Request: %s", TOKEN)
    logging.getLogger("httpx").warning("trouble with %s", TOKEN)
    logging.getLogger("bot.app").info("mine")
    lines = capsys.readouterr().err.splitlines()
    assert [line[20:] for line in lines] == ["warning: trouble with …", "mine"]


CANARIES = {
    variable: f" {number}canary:{number}/x y\n"
    for number, variable in enumerate(
        (
            "TELEGRAM_TOKEN",
            "DISCORD_TOKEN",
            "DOPPEL_WEB_PASSWORD",
            "DOPPEL_ENGINE_KEY",
            "X_BEARER_TOKEN",
            "HF_TOKEN",
            "PIGEON_KEY",
            "PIGEON_EXTRA",
        )
    )
}
PIGEON = PlatformPlugin(
    name="pigeon",
    settings=PlatformSettings,
    open=lambda *_: None,
    secrets=("PIGEON_KEY",),
    optional_secrets=("PIGEON_EXTRA",),
)
LOGGERS = ("", "httpx", "uvicorn", "uvicorn.error", "gradio", "telegram.ext", "discord.client", "asyncio", "own")


def fail(secret: str) -> None:
    raise RuntimeError(f"no answer from {quote(secret)}") from ConnectionError(401, secret)


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize("variable", CANARIES)
def test_no_canary_leaves_any_logger(
    log: Callable[..., None], capsys: pytest.CaptureFixture[str], variable: str, log_format: LogFormat
) -> None:
    platforms = [*installed_platforms().plugins.values(), PIGEON]
    log(CANARIES, platforms, debug=True, log_format=log_format)
    own_stream = io.StringIO()  # as of a library with a handler of its own, which ours does not see
    own = logging.getLogger("own")
    own.propagate = False
    own.addHandler(logging.StreamHandler(own_stream))
    secret = CANARIES[variable].strip()
    forms = (secret, CANARIES[variable], quote(secret), quote(secret, safe=""), repr(secret))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for form in forms:
            logger.warning("GET https://example.org/bot%s/getMe", form)
            logger.error(f"as it is: {form}")
            logger.error({"token": form})
        try:
            fail(secret)
        except RuntimeError:
            logger.exception("failed: %s", secret, stack_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"deprecated: {secret}", stacklevel=1)
    own.handlers.clear()
    own.propagate = True
    for text in (capsys.readouterr().err, own_stream.getvalue()):
        assert "canary" not in text.replace("test_no_canary", "").replace("CANARIES", "")
        assert "https://example.org/bot…" in text
        assert "RuntimeError: no answer from …" in text
        assert "direct cause" in text


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
