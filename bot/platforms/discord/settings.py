"""Discord's section of config.yaml, and its token."""

from collections.abc import Mapping

from doppel.plugins import PlatformSettings
from doppel.secrets import read_secret

TOKEN_VARIABLE = "DISCORD_TOKEN"  # noqa: S105 - the variable's name


class DiscordSettings(PlatformSettings):
    """`allow`: ids of users (direct messages), channels or servers."""


def read_token(environ: Mapping[str, str]) -> str:
    """The bot's token; empty when none is set. Raises UserError when its file cannot be used."""
    return read_secret(TOKEN_VARIABLE, environ)
