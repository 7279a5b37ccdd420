"""What lies in an archive and is no message: which of it is to be named, and which is only to be counted.

An export brings pictures, pages and attachments by the thousand, and nobody wants them listed. Anything else that
nothing was read from may be a chat in a format that no reader knows, and its owner should learn of it.
"""

import msgspec

LISTED = 1000
"""Files that are named; more are only counted."""

# What lies beside every export and is never one itself: sniffing it costs time and reporting it is noise.
_MEDIA = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".heic", ".avif", ".svg", ".ico", ".bmp", ".tgs", ".pdf"),
    *(".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".3gp"),
    *(".mp3", ".m4a", ".ogg", ".oga", ".opus", ".wav", ".aac", ".amr", ".flac", ".caf"),
    *(".css", ".woff", ".woff2", ".ttf", ".otf", ".eot", ".map", ".apk", ".exe", ".dmg", ".iso"),
    *(".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".vcf"),
)
_PROGRAMS = (".js", ".mjs")
"""Scripts of the pages of an export; Twitter's messages are in such files too, so they are looked into all the same."""

_COMPANIONS = frozenset(
    (
        *("your archive.html", "start_here.html", "archive_browser.html", "readme.txt", "readme.md", "license.txt"),
        *("thumbs.db", "desktop.ini"),
    )
)
_FOLDERS = frozenset(
    (
        *("photos", "files", "video_files", "voice_messages", "round_video_messages", "video_messages", "stickers"),
        *(
            "media",
            "attachments",
            "videos",
            "audio",
            "gifs",
            "images",
            "avatars",
            "assets",
            "emoji",
            "profile_pictures",
        ),
        *("chat_photos", "contacts", "css", "js", "lib", "resources", "stories", "posts_media", "tweets_media"),
    )
)
_FOLDERS_OF_PAGES = ("_files", "_media")
"""How the folders end that stand beside one file and have its name, as browsers and DiscordChatExporter save them."""


class Unread(msgspec.Struct, frozen=True):
    """Files from which nothing was read.

    Attributes:
        files: those that no reader knows, at most LISTED of them.
        count: how many these are in all.
        beside: how many pictures, videos, pages and attachments lie beside the messages.
    """

    files: list[str]
    count: int
    beside: int


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's own."""
    return name.startswith((".", "__MACOSX"))


def is_media(name: str) -> bool:
    """Whether a file need not be looked into."""
    return name.lower().endswith(_MEDIA)


def holds_attachments(folder: str) -> bool:
    """Whether a folder beside messages holds what was sent with them, by its name."""
    return folder.lower() in _FOLDERS or folder.lower().endswith(_FOLDERS_OF_PAGES)


def is_beside(name: str) -> bool:
    """Whether a file, named from the folder of a recognised export, is known to hold no messages."""
    *folders, file = name.lower().split("/")
    is_companion = is_media(file) or file.endswith(_PROGRAMS) or file in _COMPANIONS
    return is_companion or any(map(holds_attachments, folders))
