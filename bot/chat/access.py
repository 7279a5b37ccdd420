"""Who gets an answer: the allow-lists of config.yaml, closed by default. Knows no platform by name but the web page."""

import logging

from bot.platforms import Incoming
from doppel.config import Config
from doppel.i18n import tr

OPEN = frozenset({"web"})
"""Platforms that need no list: the page is served to this machine only, unless its owner opens it."""

log = logging.getLogger(__name__)


class AccessList:
    """Decides by account, chat or server id, and tells the log once a run whom to add."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._told: set[tuple[str, str]] = set()

    def allows(self, incoming: Incoming) -> bool:
        """Whether the message may be stored and answered; if not, and it was meant for us, the log says so once."""
        if incoming.platform in OPEN:
            return True
        allowed = self._allowed(incoming.platform)
        if allowed and not allowed.isdisjoint(incoming.allow_ids):
            return True
        who = (incoming.platform, incoming.sender)
        if incoming.mentions_bot and who not in self._told:
            self._told.add(who)
            log.info(self._hint(incoming, allowed))
        return False

    def _allowed(self, platform: str) -> frozenset[str] | None:
        """The ids allowed on a platform; None when config.yaml has no list for it."""
        allow = getattr(getattr(self._config, platform, None), "allow", None)
        return None if allow is None else frozenset(allow)

    def _hint(self, incoming: Incoming, allowed: frozenset[str] | None) -> str:
        values = {"platform": incoming.platform, "name": _printable(incoming.sender_name), "id": incoming.sender}
        if allowed is None:
            return tr("{platform}: {name} ({id}) wrote; config.yaml has no allow-list for this platform", **values)
        if incoming.kind == "group":
            return tr(
                "{platform}: {name} ({id}) wrote in the group {chat}, which is not allowed. "
                "To answer there, add {chat} to {platform}.allow in config.yaml",
                **values,
                chat=_group_key(incoming),
            )
        if not allowed:
            return tr(
                "{platform}: {name} ({id}) wrote; nobody is allowed yet. "
                "To answer, add {id} to {platform}.allow in config.yaml",
                **values,
            )
        return tr(
            "{platform}: {name} ({id}) wrote and is not allowed. "
            "To answer, add {id} to {platform}.allow in config.yaml",
            **values,
        )


def _group_key(incoming: Incoming) -> str:
    """The id a group's allow-list entry names: its own, where the platform offers it."""
    others = [key for key in incoming.allow_ids if key != incoming.sender]
    return incoming.chat if incoming.chat in others or not others else others[0]


def _printable(name: str) -> str:
    """A display name that cannot break a log line or hide what follows."""
    return "".join(character for character in name if character.isprintable())[:64] or "?"
