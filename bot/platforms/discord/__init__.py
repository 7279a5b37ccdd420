"""Discord through discord.py."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bot.platforms.discord.settings import TOKEN_VARIABLE, DiscordSettings, read_token
from doppel.i18n import tr
from doppel.plugins import PlatformPlugin

if TYPE_CHECKING:
    from bot.platforms.discord.platform import DiscordPlatform


def _find_problem(settings: DiscordSettings, environ: Mapping[str, str]) -> str | None:
    if not read_token(environ):
        return tr("Discord is off: no token; set DISCORD_TOKEN to the bot token from discord.com/developers")
    return None


def _open(settings: DiscordSettings, environ: Mapping[str, str]) -> "DiscordPlatform":
    from bot.platforms.discord.platform import DiscordPlatform

    return DiscordPlatform(settings, environ)


PLUGIN = PlatformPlugin(
    name="discord",
    settings=DiscordSettings,
    open=_open,
    secrets=(TOKEN_VARIABLE,),
    find_problem=_find_problem,
    noisy_loggers=("discord",),
)
