"""Talks through a folder: a message is a file `inbox/SENDER.txt`, replies are appended to `outbox/SENDER.txt`."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bot.platforms import Incoming, Newest, Outgoing, Receive
from doppel.plugins import Check, PlatformPlugin, PlatformSettings


class FolderSettings(PlatformSettings):
    """The section `folder` of config.yaml; `enabled` and `allow` are inherited."""

    path: str = "folder"


class FolderPlatform:
    """One chat for each sender."""

    name, limit, resend_is_safe = "folder", 10_000, False

    def __init__(self, settings: FolderSettings, environ: Mapping[str, str]) -> None:
        self._inbox, self._outbox = Path(settings.path) / "inbox", Path(settings.path) / "outbox"

    def length(self, text: str) -> int:
        return len(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        connected()
        while True:
            for file in self._inbox.glob("*.txt"):
                now, who = datetime.now(UTC), {"chat": file.stem, "sender": file.stem, "sender_name": file.stem}
                event = {"event_id": f"{file.stem} {now}", "message_id": str(now), "sent_at": now, "mentions_bot": True}
                text = file.read_text(encoding="utf-8")
                await receive(Incoming(platform="folder", kind="dm", text=text, allow_ids=(file.stem,), **who, **event))
                file.unlink()  # only now: a message must not be lost
            await asyncio.sleep(0.2)

    async def send(self, outgoing: Outgoing) -> str:
        with (self._outbox / f"{outgoing.chat}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{outgoing.text}\n")
        return str(outgoing.id)

    async def typing(self, chat: str) -> None:
        """Nobody watches a file."""

    async def close(self) -> None:
        """Nothing is open."""


def _checks(settings: FolderSettings, environ: Mapping[str, str]) -> list[Check]:
    is_there = Path(settings.path, "inbox").is_dir() and Path(settings.path, "outbox").is_dir()
    return [Check(name="folder path", ok=is_there, hint=f"inbox and outbox in {settings.path}", level="optional")]


PLUGIN = PlatformPlugin(
    name="folder", settings=FolderSettings, open=FolderPlatform, secrets=("FOLDER_KEY",), checks=_checks
)
