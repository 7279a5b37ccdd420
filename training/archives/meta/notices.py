"""What Instagram and Messenger write into a conversation themselves, in the name of those who talk there.

Newer downloads mark such records in no way, so they are told by their words: in English, and what is most frequent in
other languages. Knows nothing of files.
"""

import re
from collections.abc import Iterable

_LONGEST = 300
_ANYWHERE = re.compile(
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
# `{name}` is one who takes part, by whole or by first name.
_SENT = (
    r"(?:You|{name}) (?:sent|shared) (?:an?|\d+) (?:attachment|photo|video|voice message|GIF|sticker|(?:live )?location"
    r"|link|reel|post|story|profile|audio)s?"
    r"|(?:Du hast|{name} hat) (?:einen Anhang|ein Foto|ein Video|eine Sprachnachricht|einen Sticker) gesendet"
    r"|(?:Vous avez|{name} a) envoyé (?:une pièce jointe|une photo|une vidéo|un message vocal)"
    r"|(?:Enviaste|{name} envió) (?:un archivo adjunto|una foto|un video|un mensaje de voz)"
    r"|(?:Você enviou|{name} enviou) (?:um anexo|uma foto|um vídeo|uma mensagem de voz)"
    r"|(?:Hai inviato|{name} ha inviato) (?:un allegato|una foto|un video|un messaggio vocale)"
)
_DID = (
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


class Notices:
    """The notices of one conversation.

    Args:
        participants: the names of those who take part.
    """

    def __init__(self, participants: Iterable[str]) -> None:
        names = {part for name in participants for part in (name, name.partition(" ")[0]) if part}
        any_name = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
        self._sent = re.compile(_SENT.replace("{name}", f"(?:{any_name})"))
        self._did = re.compile(_DID.replace("{name}", f"(?:{any_name})"))

    def is_notice(self, text: str) -> bool:
        """Whether the text says what somebody did, and is nobody's words."""
        return self._is(_ANYWHERE, text) or self._is(self._did, text)

    def stands_for_file(self, text: str) -> bool:
        """Whether the text only says that somebody sent something."""
        return self._is(self._sent, text)

    @staticmethod
    def _is(pattern: re.Pattern[str], text: str) -> bool:
        return len(text) <= _LONGEST and pattern.fullmatch(text.strip().removesuffix(".")) is not None
