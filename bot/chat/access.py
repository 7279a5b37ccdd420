"""The access list: who gets a reply, from `allow` and `block` in config.yaml. Nobody by default."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from bot.platforms import Incoming
from bot.store.schema import Chat
from doppel.i18n import tr
from doppel.plugins import PlatformPlugin, PlatformSettings, Section

MAX_LOGGED = 10_000
"""Senders that are named in the log; more are a flood, which must not fill the memory."""
_NOBODY: frozenset[str] = frozenset()

log = logging.getLogger(__name__)


class AccessList:
    """Decides by account, chat or server id, and logs once per run and sender which id to add."""

    def __init__(self, sections: Mapping[str, Section], platforms: Iterable[PlatformPlugin[Any]]) -> None:
        settings = {name: section for name, section in sections.items() if isinstance(section, PlatformSettings)}
        self._allowed = {name: frozenset(section.allow) for name, section in settings.items()}
        self._blocked = {name: frozenset(section.block) for name, section in settings.items()}
        self._stranger_replies = {name: section.stranger_reply for name, section in settings.items()}
        self._public = frozenset(platform.name for platform in platforms if platform.is_public)
        self._logged: set[tuple[str, str]] = set()

    def allows(self, incoming: Incoming) -> bool:
        """Whether the message may be stored and answered. If not, and it mentions the bot, logs whom to allow."""
        if incoming.platform in self._public:
            return True
        if not self._blocked.get(incoming.platform, _NOBODY).isdisjoint((incoming.sender, *incoming.allow_ids)):
            return False
        allowed = self._allowed.get(incoming.platform, _NOBODY)
        if not allowed.isdisjoint(incoming.allow_ids):
            return True
        sender = (incoming.platform, incoming.sender)
        if incoming.mentions_bot and sender not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(sender)
            log.info(self._hint(incoming, allowed))
        return False

    def blocks(self, platform: str, account: str) -> bool:
        """Whether nothing of this account is to be stored, not even as a quote in somebody else's message."""
        return account in self._blocked.get(platform, _NOBODY)

    def stranger_reply(self, incoming: Incoming) -> str | None:
        """What to send to somebody whose message is not allowed, if they may get it: not in groups, not if blocked."""
        text = self._stranger_replies.get(incoming.platform, "")
        if not text.strip() or incoming.kind != "dm":
            return None
        blocked = self._blocked.get(incoming.platform, _NOBODY)
        return text if blocked.isdisjoint((incoming.sender, *incoming.allow_ids)) else None

    def still_allows(self, chat: Chat) -> bool:
        """Whether a chat in the store may be answered: somebody may have been taken off the list since they wrote."""
        if chat.platform in self._public or chat.allow_ids is None:  # None: nothing was received there since an update
            return True
        if not self._blocked.get(chat.platform, _NOBODY).isdisjoint(chat.allow_ids):
            return False
        return not self._allowed.get(chat.platform, _NOBODY).isdisjoint(chat.allow_ids)

    def _hint(self, incoming: Incoming, allowed: frozenset[str]) -> str:
        values = {"platform": incoming.platform, "name": _printable(incoming.sender_name), "id": incoming.sender}
        if incoming.kind == "group":
            return tr(
                "{platform}: message from {name} ({id}) in group {chat}, which is not allowed; "
                "to reply there, add {chat} to {platform}.allow in config.yaml",
                **values,
                chat=_group_allow_id(incoming),
            )
        if not allowed:
            return tr(
                "{platform}: message from {name} ({id}), but nobody is allowed yet; "
                "to reply, add {id} to {platform}.allow in config.yaml",
                **values,
            )
        return tr(
            "{platform}: message from {name} ({id}), who is not allowed; "
            "to reply, add {id} to {platform}.allow in config.yaml",
            **values,
        )


def _group_allow_id(incoming: Incoming) -> str:
    """The id to add for a group: its own if the platform offers it, else the most specific one."""
    group_ids = [allow_id for allow_id in incoming.allow_ids if allow_id != incoming.sender]
    return incoming.chat if incoming.chat in group_ids or not group_ids else group_ids[0]


def _printable(name: str) -> str:
    """A display name without characters that could break the log line."""
    return "".join(character for character in name if character.isprintable())[:64] or "?"
