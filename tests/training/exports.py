"""Made-up exports: a Twitter archive and Telegram chats, as files on disk. No real person wrote any of it."""

import json
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from training.archives.discovery import discover, installed_readers
from training.archives.message import Message
from training.archives.reader import Reader
from training.archives.source_tree import BadRecord

ZONE = ZoneInfo("Europe/Berlin")
OWN_ID = "1001"
SECOND = 1_500_000_000


def telegram_message(number: int, sender: int, text: Any, *, at: int | None = None, **more: Any) -> dict[str, Any]:
    """A message as Telegram Desktop writes it; `at` is seconds after SECOND, by default ten a message."""
    seconds = SECOND + (number * 10 if at is None else at)
    return {
        "id": number,
        "type": "message",
        "date": "2017-07-14T04:40:00",
        "date_unixtime": str(seconds),
        "from": {1001: "Mara Lind", 2002: "Tom Berg"}.get(sender, f"User {sender}"),
        "from_id": f"user{sender}",
        "text": text,
        "text_entities": [],
        **more,
    }


def telegram_chat(  # the names are the export's own
    messages: Sequence[Any],
    *,
    id: int = 2002,  # noqa: A002
    type: str = "personal_chat",  # noqa: A002
    name: str = "Tom",
) -> Any:
    """One chat, as it stands alone in result.json or in the list of an account."""
    return {"name": name, "type": type, "id": id, "messages": list(messages)}


def telegram_account(*chats: Any, left: Sequence[Any] = ()) -> Any:
    """A whole account of user 1001."""
    return {
        "about": "Here is the data you requested.",
        "personal_information": {"user_id": 1001, "first_name": "Mara", "last_name": "Lind"},
        "profile_pictures": [{"date": "2017-07-14T04:40:00", "photo": "(Photo not included.)"}],
        "contacts": {"about": "…", "list": [{"first_name": "Tom"}]},
        "chats": {"about": "…", "list": list(chats)},
        "left_chats": {"about": "…", "list": list(left)},
    }


def write_json(path: Path, content: Any) -> Path:
    """Writes JSON with Telegram's indentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def tweet(number: int, text: str, **more: Any) -> dict[str, Any]:
    """A tweet record; a minute later for every number."""
    clock = f"{number // 60 % 24:02}:{number % 60:02}:00"
    return {
        "tweet": {
            "id_str": str(number),
            "id": str(number),
            "full_text": text,
            "created_at": f"Wed Oct 10 {clock} +0000 2018",
            "entities": {"urls": [], "user_mentions": []},
            "display_text_range": ["0", str(len(text))],
            "retweeted": False,
            "favorite_count": "0",
            **more,
        }
    }


def direct_message(number: int, sender: str, text: str, at: str, **more: Any) -> dict[str, Any]:
    """A direct message event."""
    return {
        "messageCreate": {
            "id": str(number),
            "senderId": sender,
            "recipientId": "1",
            "text": text,
            "createdAt": at,
            "reactions": [],
            "urls": [],
            "mediaUrls": [],
            "editHistory": [],
            **more,
        }
    }


def conversation(conversation_id: str, *events: dict[str, Any]) -> dict[str, Any]:
    """A conversation of direct messages; the archive has the newest event first."""
    return {"dmConversation": {"conversationId": conversation_id, "messages": list(events)}}


def twitter_files(**records: Sequence[Any]) -> dict[str, str]:
    """Archive files by name: `twitter_files(tweets=[…], note_tweet=[…])`, with account.js and a manifest."""
    account = {"account": {"accountId": OWN_ID, "username": "mara_l", "accountDisplayName": "Mara"}}
    contents: dict[str, Sequence[Any]] = {"account": [account], **records}
    files = {
        f"data/{kind.replace('_', '-')}.js": f"window.YTD.{kind}.part0 = {json.dumps(items, ensure_ascii=False)}"
        for kind, items in contents.items()
    }
    listed = {
        kind: {"files": [{"fileName": f"data/{kind.replace('_', '-')}.js", "globalName": f"YTD.{kind}.part0"}]}
        for kind in contents
    }
    manifest = {"userInfo": {"accountId": OWN_ID}, "archiveInfo": {}, "dataTypes": listed}
    files["data/manifest.js"] = f"window.__THAR_CONFIG = {json.dumps(manifest)}"
    files["data/like.js"] = 'window.YTD.like.part0 = [ {"like": {"tweetId": "1"}} ]'
    files["Your archive.html"] = "<html></html>"
    files["assets/js/app.js"] = "console.log(1)"
    return files


def write_folder(folder: Path, files: dict[str, str]) -> Path:
    """Files in a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def write_zip(path: Path, files: dict[str, str], prefix: str = "") -> Path:
    """Files in a zip, below a prefix such as `twitter-2024/`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return path


def read_all(path: Path, readers: Sequence[Reader] | None = None) -> tuple[list[Message], list[BadRecord]]:
    """Every message of the archives at a path, and the records that could not be read."""
    discovery = discover([str(path)], path.parent, ZONE, readers or installed_readers())
    with closing(discovery):
        messages = [message for source in discovery.sources for message in source.reader.read(source.tree)]
    return messages, [bad for source in discovery.sources for bad in source.tree.bad_records]
