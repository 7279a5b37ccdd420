"""Who gets a reply: the allow-lists of config.yaml, empty by default."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from bot.platforms import Incoming
from doppel.i18n import tr
from doppel.plugins import PlatformPlugin, PlatformSettings, Section

log = logging.getLogger(__name__)


class AccessList:
    """Decides by account, chat or server id, and tells the log once a run whom to add."""

    def __init__(self, sections: Mapping[str, Section], platforms: Iterable[PlatformPlugin[Any]]) -> None:
        self._sections = sections
        self._public = frozenset(platform.name for platform in platforms if platform.is_public)
        self._told: set[tuple[str, str]] = set()

    def allows(self, incoming: Incoming) -> bool:
        """Whether the message may be stored and answered; if not, and it was meant for us, the log says so once."""
        if incoming.platform in self._public:
            return True
        allowed = self._allowed(incoming.platform)
        if not allowed.isdisjoint(incoming.allow_ids):
            return True
        who = (incoming.platform, incoming.sender)
        if incoming.mentions_bot and who not in self._told:
            self._told.add(who)
            log.info(self._hint(incoming, allowed))
        return False

    def _allowed(self, platform: str) -> frozenset[str]:
        settings = self._sections.get(platform)
        return frozenset(settings.allow) if isinstance(settings, PlatformSettings) else frozenset()

    def _hint(self, incoming: Incoming, allowed: frozenset[str]) -> str:
        values = {"platform": incoming.platform, "name": _printable(incoming.sender_name), "id": incoming.sender}
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
