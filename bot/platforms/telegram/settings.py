"""Telegram's section of config.yaml, and its token."""

from collections.abc import Mapping

from doppel.plugins import PlatformSettings
from doppel.secrets import read_secret

TOKEN_VARIABLE = "TELEGRAM_TOKEN"  # noqa: S105 - the variable's name


class TelegramSettings(PlatformSettings):
    """`allow`: user ids (private chats) and chat ids (groups). `names`: what the bot also answers to in groups."""

    names: tuple[str, ...] = ()
    api: str = "https://api.telegram.org"


def read_token(environ: Mapping[str, str]) -> str:
    """The bot's token; empty when none is set. Raises UserError when its file cannot be used."""
    return read_secret(TOKEN_VARIABLE, environ)
