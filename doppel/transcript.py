"""The transcript: the one text form of a session, used by training and serving alike.

    [2018 Tue evening · telegram dm · en · with Ramito]

    Ramito: hello
     how are you

    me: fine!

A header in brackets, then turns. Inside a turn one newline and a space start the next bubble; an
empty line ends the turn. Every piece of somebody's text is tokenized on its own, with its newlines
replaced by a visible sign and with no special or added token, so no text can end a turn, begin
another, or pose as a header. Knows nothing of models, platforms or export formats.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = "doppel-1"
"""Name of this format, written in every manifest; a change of the rules below changes it."""

ME = "me"
"""The persona's name as a speaker. Contacts have capitalised pseudonyms, so it is never theirs."""

NEWLINE_SIGN = "\u23ce"  # ⏎ stands for a newline inside a bubble
_SIGN_ALIAS = "\u21b5"  # ↵ replaces a ⏎ that somebody typed, which keeps the sign ours
_LINE_ENDS = dict.fromkeys((0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029, 0x0D), "\n")
_DROPPED = dict.fromkeys((0x00, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF))
_BLANK_SIGN = "\u2581"  # ▁ is how many tokenizers write a blank, and they read it back as one
_BYTE = re.compile("<0x[0-9A-F]{2}>")  # how tokenizers spell a bare byte; some read the spelling as the byte

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The situation of a session. Every field may be absent (None); training drops some at random.

    Attributes:
        year: for example `2018`.
        weekday: `Mon` ... `Sun`, in the owner's zone.
        hour: `night` (0-6), `morning` (6-12), `afternoon` (12-18) or `evening` (18-24), owner's zone.
        platform: `telegram`, `twitter`, ...
        kind: `dm`, `group`, `post`, `reply` or `quote`.
        language: ISO 639-1 code of what the persona writes.
        contact: pseudonym of the other person, in a conversation of two.
    """

    year: str | None = None
    weekday: str | None = None
    hour: str | None = None
    platform: str | None = None
    kind: str | None = None
    language: str | None = None
    contact: str | None = None

    def render(self) -> str:
        """The header line without its line end, for example `[2018 Tue evening · telegram dm]`.

        Raises:
            ValueError: a field holds a sign of the header itself.
        """
        if not all(_is_field(value) for value in msgspec.structs.astuple(self) if value is not None):
            raise ValueError(f"not a header: {self!r}")
        when = " ".join(filter(None, (self.year, self.weekday, self.hour)))
        where = " ".join(filter(None, (self.platform, self.kind)))
        who = f"with {self.contact}" if self.contact else ""
        return "[" + " · ".join(filter(None, (when, where, self.language, who))) + "]"


class Turn(msgspec.Struct, frozen=True):
    """One person's consecutive bubbles. `speaker` is `me` for the persona, else a pseudonym."""

    speaker: str
    bubbles: tuple[str, ...]

    @property
    def is_mine(self) -> bool:
        return self.speaker == ME


class Encoded(msgspec.Struct, frozen=True):
    """A session as tokens.

    Attributes:
        ids: token ids, length T.
        roles: length T; 0 context (no loss), 1 a token of the persona's text, 2 a bubble or turn end
            of the persona's (supervised too, but no text: bits per byte counts role 1 only).
        opening: how many tokens the header takes, where the first turn begins.
        turn_ends: positions just after each turn, where a long session may be cut.
        turn_bytes: UTF-8 bytes of the persona's bubbles in each turn, 0 for other people's turns.
    """

    ids: list[int]
    roles: list[int]
    opening: int
    turn_ends: list[int]
    turn_bytes: list[int]

    @property
    def text_bytes(self) -> int:
        """Bytes of everything the persona wrote, the denominator of bits per byte."""
        return sum(self.turn_bytes)


def normalize(text: str) -> str:
    """Bubble text in the form the transcript keeps: NFC, `\\n` line ends, valid Unicode, stripped."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").translate(_LINE_ENDS)
    text = unicodedata.normalize("NFC", text.translate(_DROPPED))
    return text.replace(NEWLINE_SIGN, _SIGN_ALIAS).replace(_BLANK_SIGN, "_").strip()


def render(header: Header, turns: Sequence[Turn]) -> str:
    """The text form of a session, for people to look at; `Transcript.encode` gives the same text as tokens."""
    blocks = [f"{turn.speaker}:" + "\n".join(_conceal(bubble) for bubble in turn.bubbles) for turn in turns]
    return "\n\n".join([header.render(), *blocks])


def pseudonym(platform: str, account: str) -> str:
    """A stable made-up name for an account: capitalised syllables, 2.6e5 of them, same on every machine."""
    digest = hashlib.sha256(f"{platform}\0{account}".encode()).digest()
    syllables = ["bdfghjklmnprstvz"[byte & 15] + "aeiou"[(byte >> 4) % 5] for byte in digest[:3]]
    return "".join(syllables).capitalize()


def hour_bucket(hour: int) -> str:
    """`night`, `morning`, `afternoon` or `evening` for an hour of the day, 0-23."""
    return ("night", "morning", "afternoon", "evening")[hour // 6]


def weekday_name(weekday: int) -> str:
    """`Mon` ... `Sun` for `datetime.weekday()`."""
    return _WEEKDAYS[weekday]


class Transcript:
    """Turns sessions into tokens and generated tokens into bubbles, for one tokenizer.

    Args:
        tokenizer: a fast transformers tokenizer.

    Raises:
        UserError: the tokenizer loses line breaks, which end bubbles and turns.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self._reserved = _reserved(tokenizer)
        self._bubble_end = self._line_end("\n")
        self._turn_end = self._line_end("\n\n")
        self._me = self._plain([f"{ME}:"])[0]
        bos = tokenizer.bos_token_id
        self._start = [bos] if isinstance(bos, int) else []
        eos = tokenizer.eos_token_id
        ends = {eos} if isinstance(eos, int) else set()
        # No text holds a special token: one that comes out ends the turn, rather than stand there as `<bos>`.
        added = tokenizer.added_tokens_decoder  # a property that builds its dictionary anew: asked for once
        ends |= {token_id for token_id in self._reserved if added[token_id].special}
        if len(self._turn_end) == 1:
            ends.add(self._turn_end[0])
        self.stop_ids: frozenset[int] = frozenset(ends)
        """Tokens after which a turn is over. `TurnDecoder` also finds an end that needs two tokens."""

    def encode(self, header: Header, turns: Sequence[Turn], learned: str = ME) -> Encoded:
        """A whole session with the roles of its tokens, for training and scoring.

        Args:
            learned: the speaker whose words carry loss, in place of the persona's.
        """
        ids = self._opening(header)
        opening = len(ids)
        roles = [0] * opening
        turn_ends = []
        turn_bytes = []
        for turn, texts in zip(turns, self._texts(turns), strict=True):
            prefix = self._speaker(turn.speaker)
            ids += prefix
            roles += [0] * len(prefix)
            text_role, end_role = (1, 2) if turn.speaker == learned else (0, 0)
            last = len(texts) - 1
            for position, text in enumerate(texts):
                end = self._turn_end if position == last else self._bubble_end
                ids += text + end
                roles += [text_role] * len(text) + [end_role] * len(end)
            turn_ends.append(len(ids))
            written = turn.bubbles if turn.speaker == learned else ()
            turn_bytes.append(sum(len(normalize(bubble).encode()) for bubble in written))
        return Encoded(ids, roles, opening, turn_ends, turn_bytes)

    def prompt(self, header: Header, turns: Sequence[Turn]) -> list[int]:
        """Tokens after which the persona's next turn is generated; no turns: it speaks of its own accord."""
        return self.encode(header, turns).ids + self._me

    def decode(self, ids: Iterable[int]) -> tuple[str, list[Turn]]:
        """Reads back the header line and the turns of `encode`d ids. Bubbles come out normalized."""
        text = self._decode(ids if not self._start else islice(ids, 1, None))
        header, *blocks = text.removesuffix("\n\n").split("\n\n")
        turns = []
        for block in blocks:
            speaker, bubbles = block.split(":", 1)
            turns.append(Turn(speaker.strip(), tuple(_reveal(bubble) for bubble in bubbles.split("\n"))))
        return header.strip(), turns

    def reply(self, ids: Sequence[int]) -> list[str]:
        """The bubbles of one generated turn."""
        decoder = TurnDecoder(self)
        done = [bubble for token in ids for bubble in decoder.feed(token)]
        return done + decoder.close()

    def _opening(self, header: Header) -> list[int]:
        return self._start + self._plain([header.render()])[0] + self._turn_end

    def _speaker(self, speaker: str) -> list[int]:
        if speaker == ME:
            return list(self._me)
        if not speaker or ":" in speaker or "\n" in speaker or speaker != normalize(speaker):
            raise ValueError(f"not a speaker name: {speaker!r}")
        return self._plain([f"{speaker}:"])[0]

    def _texts(self, turns: Sequence[Turn]) -> Iterator[list[list[int]]]:
        """Token ids of the bubbles, a list a turn; one tokenizer call for all of them."""
        flat = self._plain([_conceal(bubble) for turn in turns for bubble in turn.bubbles])
        parts = iter(flat)
        for turn in turns:
            if not turn.bubbles:
                raise ValueError("a turn needs a bubble")
            yield list(islice(parts, len(turn.bubbles)))

    def _plain(self, texts: list[str]) -> list[list[int]]:
        """Tokenizes texts one by one, with no reserved token among the ids."""
        if not texts:
            return []
        return [
            ids if self._is_harmless(text, ids) else self._cut(text, "")
            for text, ids in zip(texts, self._ids(texts), strict=True)
        ]

    def _cut(self, text: str, context: str) -> list[int]:
        """Tokenizes text that may spell a reserved token or a byte: the spelling is cut in two.

        A single character that is itself a reserved token is left out.
        """
        ids = self._following(context, text)
        if self._is_harmless(text, ids):
            return ids
        if len(text) < 2:
            return []
        starts = [
            text.index(spelling) for spelling in self._reserved.values() if len(spelling) > 1 and spelling in text
        ]
        starts += [byte.start() for byte in _BYTE.finditer(text)]
        at = min(starts) + 1 if starts else len(text) // 2
        return self._cut(text[:at], context) + self._cut(text[at:], "\n")

    def _is_harmless(self, text: str, ids: list[int]) -> bool:
        return self._reserved.keys().isdisjoint(ids) and not _BYTE.search(text)

    def _line_end(self, text: str) -> list[int]:
        ids = self._following("a", text)
        if self._decode(ids) != text:
            raise UserError(tr("model.base: this model's tokenizer loses line breaks; choose another base model"))
        return ids

    def _following(self, context: str, text: str) -> list[int]:
        """Ids of `text` without the blank that many tokenizers begin a text with, if it follows some `context`."""
        before, both, alone = self._ids([context, context + text, text])
        return both[len(before) :] if both[: len(before)] == before else alone

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def _decode(self, ids: Iterable[int]) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


class TurnDecoder:
    """Reads a generated turn token by token: which bubbles are complete, what is being written, is it over."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._carried = ""
        self._pending: list[int] = []
        self._given = 0
        self.finished = False

    @property
    def partial(self) -> str:
        """Text of the bubble being written; a character whose bytes are incomplete is held back."""
        return _reveal(self._text().rpartition("\n")[2])

    def feed(self, token: int) -> list[str]:
        """Takes the next token and returns the bubbles it completed; sets `finished` at the turn's end."""
        if self.finished:
            return []
        if token in self._transcript.stop_ids:
            self.finished = True
            return self.close()
        self._pending.append(token)
        text = self._text()
        whole, turn_end, _ = text.partition("\n\n")
        if turn_end:
            self.finished = True
            self._restart("")
            return _bubbles(whole.split("\n")[self._given :])
        lines = text.split("\n")[:-1]
        bubbles = _bubbles(lines[self._given :])
        self._given = len(lines)
        if text.endswith("\n"):
            self._restart("\n")
        return bubbles

    def close(self) -> list[str]:
        """What is left when generation stops without the turn's end."""
        bubbles = _bubbles(self._text().split("\n")[self._given :])
        self._restart("")
        return bubbles

    def _text(self) -> str:
        return self._carried + self._transcript._decode(self._pending)

    def _restart(self, carried: str) -> None:
        """Forgets the tokens of finished lines; a newline is carried over, as a second one ends the turn."""
        self._carried = carried
        self._pending = []
        self._given = len(carried)  # lines of the text so far that were given out; before a newline stands one


def _bubbles(lines: list[str]) -> list[str]:
    return [bubble for line in lines if (bubble := _reveal(line))]


def _conceal(bubble: str) -> str:
    text = normalize(bubble)
    if not text:
        raise ValueError("an empty bubble")
    return " " + text.replace("\n", f" {NEWLINE_SIGN} ")


def _reveal(text: str) -> str:
    text = text.replace("\ufffd", "")  # bytes that are no character, or not yet
    return text.replace(f" {NEWLINE_SIGN} ", "\n").replace(NEWLINE_SIGN, "\n").strip()


def _is_field(value: str) -> bool:
    return bool(value) and value.isprintable() and not any(sign in value for sign in "[]·")


def _reserved(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """Tokens that nobody's text may become, with their spellings: all special and added ones.

    Exempt are single characters that a tokenizer adds as plain text. The token for unknown characters is reserved
    too: such a character is left out, as it could not be read back.
    """
    return {
        token_id: token.content
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or len(token.content) > 1
    }
