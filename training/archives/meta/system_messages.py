"""Recognizes messages that Instagram and Messenger write into a conversation in a participant's name.

Newer downloads do not mark them, so they are matched by their text: in English, and the most common ones in other
languages.
"""

import re
from collections.abc import Iterable

_MAX_LENGTH = 300
_FIXED = re.compile(
    r"You are now connected on Messenger|You can now (?:message and )?call each other.*"
    r"|Say hi to your new Facebook friend.*|(?:The )?(?:audio|video|voice) (?:call|chat) ended|(?:Call|Chat) ended"
    r"|Missed (?:(?:video|voice|audio) )?(?:call|chat)|This poll is no longer available|You unsent a message"
    r"|(?:Messages and calls|New messages) .*end-to-end encrypt.*"
    r"|Reacted \S+ to your message|(?:Liked|Loved) a message|.+ liked a message"
    r"|Hat mit \S+ auf deine Nachricht reagiert|Gefällt eine Nachricht"
    r"|A réagi (?:avec |par )?\S+ à votre message|A aimé un message"
    r"|Reaccionó con \S+ a tu mensaje|(?:Le gustó|Indicó que le gusta) un mensaje"
    r"|Reagiu com \S+ à sua mensagem|Curtiu uma mensagem|Ha (?:aggiunto la reazione|reagito con) \S+ al tuo messaggio"
)
# `{name}` is a participant, by full or first name.
_SENT_FILE = (
    r"(?:You|{name}) (?:sent|shared) (?:an?|\d+) (?:attachment|photo|video|voice message|GIF|sticker|(?:live )?location"
    r"|link|reel|post|story|profile|audio)s?"
    r"|(?:Du hast|{name} hat) (?:einen Anhang|ein Foto|ein Video|eine Sprachnachricht|einen Sticker) gesendet"
    r"|(?:Vous avez|{name} a) envoyé (?:une pièce jointe|une photo|une vidéo|un message vocal)"
    r"|(?:Enviaste|{name} envió) (?:un archivo adjunto|una foto|un video|un mensaje de voz)"
    r"|(?:Você enviou|{name} enviou) (?:um anexo|uma foto|um vídeo|uma mensagem de voz)"
    r"|(?:Hai inviato|{name} ha inviato) (?:un allegato|una foto|un video|un messaggio vocale)"
)
_ACTION = (
    r"(?:You|{name}) (?:called {name}"
    r"|missed (?:your|an?|{name}'s) (?:(?:video|audio|voice) )?(?:call|chat)(?: from .+)?"
    r"|(?:started|joined|ended) (?:an?|the) (?:(?:video|audio|voice) )?(?:call|chat)"
    r"|named the group(?: .+)?|changed the (?:group photo|group name|(?:chat )?theme|chat colou?rs?)(?: to .+)?"
    r"|set the (?:emoji|quick reaction) to .+|(?:set|cleared) the nickname (?:for|of) .+"
    r"|(?:set|cleared) (?:your|his|her|their)(?: own)? nickname(?: to .+)?"
    r"|(?:added|removed) .+ (?:to|from) the group|(?:left|joined|created) the group|joined the group via .+"
    r"|created (?:a poll|a plan|the poll).*|voted for .+ in the poll.*"
    r"|(?:pinned|unpinned|unsent|removed) a message|waved at {name}"
    r"|turned (?:on|off) (?:disappearing messages|vanish mode|member approval|end-to-end).*"
    r"|started sharing (?:video|(?:a )?(?:live )?location))"
)


class SystemMessages:
    """Recognizes the system messages of one conversation.

    Args:
        participants: names of the participants.
    """

    def __init__(self, participants: Iterable[str]) -> None:
        names = {part for name in participants for part in (name, name.partition(" ")[0]) if part}
        any_name = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
        self._sent_file = re.compile(_SENT_FILE.replace("{name}", f"(?:{any_name})"))
        self._action = re.compile(_ACTION.replace("{name}", f"(?:{any_name})"))

    def matches(self, text: str) -> bool:
        """Whether the text is a system message about what somebody did."""
        return self._matches(_FIXED, text) or self._matches(self._action, text)

    def is_file_placeholder(self, text: str) -> bool:
        """Whether the text only says that somebody sent a file."""
        return self._matches(self._sent_file, text)

    @staticmethod
    def _matches(pattern: re.Pattern[str], text: str) -> bool:
        return len(text) <= _MAX_LENGTH and pattern.fullmatch(text.strip().removesuffix(".")) is not None
