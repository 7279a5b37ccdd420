"""Telegram through python-telegram-bot."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bot.platforms.telegram.settings import TOKEN_VARIABLE, TelegramSettings, read_token
from doppel.i18n import tr
from doppel.plugins import PlatformPlugin

if TYPE_CHECKING:
    from bot.platforms.telegram.platform import TelegramPlatform


def _find_problem(settings: TelegramSettings, environ: Mapping[str, str]) -> str | None:
    token = read_token(environ)
    if not token:
        return tr("Telegram is off: no token; set TELEGRAM_TOKEN to what @BotFather gave you")
    number, _, secret = token.partition(":")
    if not number.isdecimal() or not secret.replace("-", "").replace("_", "").isalnum():
        return tr("Telegram is off: TELEGRAM_TOKEN is not a token; @BotFather's look like 123456:AbC-dEf")
    return None


def _open(settings: TelegramSettings, environ: Mapping[str, str]) -> "TelegramPlatform":
    from bot.platforms.telegram.platform import TelegramPlatform

    return TelegramPlatform(settings, environ)


PLUGIN = PlatformPlugin(
    name="telegram",
    settings=TelegramSettings,
    open=_open,
    secrets=(TOKEN_VARIABLE,),
    find_problem=_find_problem,
    noisy_loggers=("telegram", "httpx", "httpcore"),
)
