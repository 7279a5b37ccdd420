"""Files in an archive from which nothing was read: which are listed by name, and which are only counted.

Exports contain thousands of pictures, pages and attachments, which nobody wants listed. Any other file may be a chat
in an unsupported format, so the user is told about it.
"""

import msgspec

from doppel.i18n import tr

MAX_LISTED = 1000
"""Files listed by name; more are only counted."""

# Files that accompany exports and contain no messages. They are not sniffed, which would be slow.
_MEDIA = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".heic", ".avif", ".svg", ".ico", ".bmp", ".tgs", ".pdf"),
    *(".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".3gp"),
    *(".mp3", ".m4a", ".ogg", ".oga", ".opus", ".wav", ".aac", ".amr", ".flac", ".caf"),
    *(".css", ".woff", ".woff2", ".ttf", ".otf", ".eot", ".map", ".apk", ".exe", ".dmg", ".iso"),
    *(".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".vcf"),
)
_WEB_PAGES = (".html", ".htm")
_COMPRESSED = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
_SCRIPTS = (".js", ".mjs")
"""Scripts of an export's pages. They are sniffed all the same, because Twitter's messages are in `.js` files."""

_COMPANION_FILES = frozenset(
    (
        *("your archive.html", "start_here.html", "archive_browser.html", "readme.txt", "readme.md", "license.txt"),
        *("thumbs.db", "desktop.ini"),
    )
)
_ATTACHMENT_FOLDERS = frozenset(
    (
        *("photos", "files", "video_files", "voice_messages", "round_video_messages", "video_messages", "stickers"),
        *("media", "attachments", "videos", "audio", "gifs", "images", "avatars", "assets", "emoji"),
        *("profile_pictures", "chat_photos", "contacts", "css", "js", "lib", "resources", "stories"),
        *("posts_media", "tweets_media"),
    )
)
_ATTACHMENT_SUFFIXES = ("_files", "_media")
"""Endings of folders that browsers and DiscordChatExporter save beside one file, under that file's name."""


class Unread(msgspec.Struct, frozen=True):
    """Files from which nothing was read.

    Attributes:
        files: files in no known format, at most MAX_LISTED of them.
        count: number of such files.
        attachments: number of pictures, videos, pages and attachments.
        hints: what some of the files are, and what to do about them.
    """

    files: list[str]
    count: int
    attachments: int
    hints: dict[str, str] = {}


def misnamed(head: bytes, name: str) -> str:
    """What a file is that is named as a text but is none, and what to do; empty for any other file."""
    if name.lower().endswith((".zip", *_WEB_PAGES, *_COMPRESSED)):
        return ""
    if head.startswith(b"PK\x03\x04") and not (b"[Content_Types].xml" in head or b"xl/" in head):
        return tr("a zip; name it .zip")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html", b"<table", b"<meta")):
        return tr("a web page; export again as CSV or JSON")
    hint = next((hint for start, hint in _BINARY.items() if head.startswith(start)), "")
    return tr(hint) if hint else ""


_WORKBOOK = "an Excel workbook; save it as CSV UTF-8"
_PACKED = "a compressed file; unpack it first"
_BINARY = {
    b"PK\x03\x04": _WORKBOOK,
    b"\xd0\xcf\x11\xe0": _WORKBOOK,
    b"\x1f\x8b": _PACKED,
    b"Rar!": _PACKED,
    b"7z\xbc\xaf": _PACKED,
    b"BZh": _PACKED,
    b"%PDF": "a PDF; export again as text, CSV or JSON",
    b"SQLite format 3": "an SQLite database; export its messages as CSV or JSON",
}
"""What files are by their first bytes, for `tr`."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to the operating system."""
    return name.startswith((".", "__MACOSX"))


def is_media(name: str) -> bool:
    """Whether a file is of a type that never contains messages."""
    return name.lower().endswith(_MEDIA)


def is_attachment_folder(folder: str) -> bool:
    """Whether a folder next to messages contains what was sent with them, judged by its name."""
    return folder.lower() in _ATTACHMENT_FOLDERS or folder.lower().endswith(_ATTACHMENT_SUFFIXES)


def is_attachment(name: str) -> bool:
    """Whether a file, given by its path within a recognized export, certainly contains no messages."""
    *folders, file = name.lower().split("/")
    is_companion = is_media(file) or file.endswith(_SCRIPTS) or file in _COMPANION_FILES
    return is_companion or any(map(is_attachment_folder, folders))
