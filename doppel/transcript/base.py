"""The transcript: the one text form of a session, used by training and serving alike.

    [2018 Tue evening · telegram dm · en · with Ramito]

    Ramito: hello
     how are you

    me: fine!

A header in brackets, then turns. Inside a turn one newline and a space start the next bubble; an
empty line ends the turn. Every piece of somebody's text is tokenized on its own, with its newlines
replaced by a visible sign and with no special or added token, so no text can end a turn, begin
another, or pose as a header.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from doppel.transcript.safe_tokens import SafeTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = "doppel-1"
"""Name of this format, written in the manifest; a change of the rules below changes it."""

FORMATS = {"base": FORMAT, "chat": "doppel-chat-1"}
"""Name of each format by what `transcript` in config.yaml calls it."""

ME = "me"
"""The persona's name as a speaker. Contacts have capitalised pseudonyms, so it is never theirs."""

NEWLINE_SIGN = "\u23ce"  # ⏎ stands for a newline inside a bubble
_SIGN_ALIAS = "\u21b5"  # ↵ replaces a ⏎ that somebody typed, which keeps the sign ours
_LINE_ENDS = dict.fromkeys((0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029, 0x0D), "\n")
_DROPPED = dict.fromkeys((0x00, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF))
_BLANK_SIGN = "\u2581"  # ▁ is how many tokenizers write a blank, and they read it back as one

NO_LOSS, TEXT_LOSS, END_LOSS = 0, 1, 2
"""Values of a loss mask; see `Encoded`."""

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
        loss_mask: length T; `NO_LOSS` for context, `TEXT_LOSS` for tokens of the persona's text, `END_LOSS` for
            the ends of the persona's bubbles and turns (trained on, but not counted in bits per byte).
        opening: how many tokens the header takes, where the first turn begins.
        turn_ends: positions just after each turn, where a long session may be cut.
        turn_bytes: UTF-8 bytes of the persona's bubbles in each turn, 0 for other people's turns.
    """

    ids: list[int]
    loss_mask: list[int]
    opening: int
    turn_ends: list[int]
    turn_bytes: list[int]

    @property
    def text_bytes(self) -> int:
        """Bytes of everything the persona wrote, the denominator of bits per byte."""
        return sum(self.turn_bytes)


def normalize(text: str) -> str:
    """Bubble text in the form the transcript keeps: NFC, `\\n` line ends, valid Unicode, stripped."""
    if not text.isprintable():  # line ends, controls and lone surrogates are not, and nearly all text is
        text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").translate(_LINE_ENDS)
        text = text.translate(_DROPPED)
    elif text.isascii():
        return text.strip()
    else:
        text = text.replace("\ufffd", "")
    text = unicodedata.normalize("NFC", text)
    return text.replace(NEWLINE_SIGN, _SIGN_ALIAS).replace(_BLANK_SIGN, "_").strip()


def render(header: Header, turns: Sequence[Turn]) -> str:
    """The text form of a session, for people to look at; `Transcript.encode` gives the same text as tokens."""
    blocks = [
        f"{turn.speaker}:" + "\n".join(f" {escape_newlines(bubble)}" for bubble in turn.bubbles) for turn in turns
    ]
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

    Every turn's tokens depend on nothing before them, so a session may be cut at any turn's end and its rest
    put after the header's tokens again.

    Args:
        tokenizer: a fast transformers tokenizer.

    Raises:
        UserError: the tokenizer loses line breaks, which end bubbles and turns.
    """

    format = FORMAT
    """The name in the manifest."""
    template = ""
    """Digest of what the base's own template contributed, for the manifest; this format uses none."""
    ends_at_empty_line = True
    """Whether an empty line ends a turn, as one token of `stop_ids` does."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.safe_tokenizer = SafeTokenizer(tokenizer)
        self._bubble_end = self.safe_tokenizer.line_end("\n")
        self._turn_end = self.safe_tokenizer.line_end("\n\n")
        self._me = self.safe_tokenizer.encode_text([f"{ME}:"])[0]
        bos = tokenizer.bos_token_id
        self._start = [bos] if isinstance(bos, int) else []
        ends = self._turn_end if len(self._turn_end) == 1 else []
        self.stop_ids: frozenset[int] = self.safe_tokenizer.special.union(ends)
        """Tokens after which a turn is over. `TurnDecoder` also finds an end that needs two tokens."""
        self.forbidden_ids: frozenset[int] = self._forbidden(ends)
        """Markup tokens, which must never be generated or shown. The tokens that end a turn are not among them."""

    def encode(self, header: Header, turns: Sequence[Turn], learned: str = ME) -> Encoded:
        """A whole session with its loss mask, for training and scoring.

        Args:
            learned: the speaker whose words carry loss, in place of the persona's.
        """
        ids = self._opening(header)
        opening = len(ids)
        loss_mask = [NO_LOSS] * opening
        turn_ends = []
        turn_bytes = []
        for turn, (block, block_mask) in zip(turns, self._blocks(header, turns, learned), strict=True):
            ids += block
            loss_mask += block_mask
            turn_ends.append(len(ids))
            written = turn.bubbles if turn.speaker == learned else ()
            turn_bytes.append(sum(len(normalize(bubble).encode()) for bubble in written))
        return Encoded(ids, loss_mask, opening, turn_ends, turn_bytes)

    def prompt(self, header: Header, turns: Sequence[Turn]) -> list[int]:
        """Tokens after which the persona's next turn is generated; no turns: it speaks of its own accord."""
        return self.encode(header, turns).ids + self._me

    @property
    def start(self) -> Sequence[int]:
        """The tokens that only a sequence begins with: nothing, or one that marks the beginning of a text."""
        return self._start

    def decode(self, ids: Iterable[int]) -> tuple[str, list[Turn]]:
        """Reads back the header line and the turns of `encode`d ids. Bubbles come out normalized."""
        text = self.safe_tokenizer.decode(ids if not self._start else islice(ids, 1, None))
        header, *blocks = text.removesuffix("\n\n").split("\n\n")
        turns = []
        for block in blocks:
            speaker, bubbles = block.split(":", 1)
            turns.append(Turn(speaker.strip(), tuple(unescape_newlines(bubble) for bubble in bubbles.split("\n"))))
        return header.strip(), turns

    def reply(self, ids: Sequence[int]) -> list[str]:
        """The bubbles of one generated turn."""
        decoder = TurnDecoder(self)
        done = [bubble for token in ids for bubble in decoder.feed(token)]
        return done + decoder.close()

    def _forbidden(self, turn_end: Iterable[int]) -> frozenset[int]:
        return self.safe_tokenizer.markup.difference(turn_end, {self.tokenizer.eos_token_id})

    def _opening(self, header: Header) -> list[int]:
        return self._start + self.safe_tokenizer.encode_text([header.render()])[0] + self._turn_end

    def _blocks(self, header: Header, turns: Sequence[Turn], learned: str) -> Iterator[tuple[list[int], list[int]]]:
        """Tokens and loss mask of each turn."""
        texts = iter(
            self.safe_tokenizer.encode_text(
                [f" {escape_newlines(bubble)}" for turn in turns for bubble in checked_bubbles(turn)]
            )
        )
        for turn in turns:
            ids = list(self._me) if turn.is_mine else self.safe_tokenizer.encode_text([f"{checked_speaker(turn)}:"])[0]
            loss_mask = [NO_LOSS] * len(ids)
            text_loss, end_loss = (TEXT_LOSS, END_LOSS) if turn.speaker == learned else (NO_LOSS, NO_LOSS)
            last = len(turn.bubbles) - 1
            for position, text in enumerate(islice(texts, len(turn.bubbles))):
                end = self._turn_end if position == last else self._bubble_end
                ids += text + end
                loss_mask += [text_loss] * len(text) + [end_loss] * len(end)
            yield ids, loss_mask


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
        return unescape_newlines(self._text().rpartition("\n")[2])

    def feed(self, token: int) -> list[str]:
        """Takes the next token and returns the bubbles it completed; sets `finished` at the turn's end."""
        if self.finished:
            return []
        if token in self._transcript.stop_ids:
            self.finished = True
            return self.close()
        if token in self._transcript.forbidden_ids:  # from an engine that cannot rule them out
            return []
        self._pending.append(token)
        text = self._text()
        whole, empty_line, _ = text.partition("\n\n")
        if empty_line and self._transcript.ends_at_empty_line:
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
        return self._carried + self._transcript.safe_tokenizer.decode(self._pending)

    def _restart(self, carried: str) -> None:
        """Forgets the tokens of finished lines; a newline is carried over, as a second one may end the turn."""
        self._carried = carried
        self._pending = []
        self._given = len(carried)  # lines of the text so far that were given out; before a newline stands one


def _bubbles(lines: list[str]) -> list[str]:
    return [bubble for line in lines if (bubble := unescape_newlines(line))]


def escape_newlines(bubble: str) -> str:
    """A bubble as one line of a transcript. Raises ValueError when there is no text in it."""
    text = normalize(bubble)
    if not text:
        raise ValueError("an empty bubble")
    return text.replace("\n", f" {NEWLINE_SIGN} ")


def unescape_newlines(line: str) -> str:
    """The bubble that a line of a transcript stands for."""
    text = line.replace("\ufffd", "")  # bytes that are no character, or not yet
    return text.replace(f" {NEWLINE_SIGN} ", "\n").replace(NEWLINE_SIGN, "\n").strip()


def checked_bubbles(turn: Turn) -> tuple[str, ...]:
    """The turn's bubbles. Raises ValueError when there are none."""
    if not turn.bubbles:
        raise ValueError("a turn needs a bubble")
    return turn.bubbles


def checked_speaker(turn: Turn) -> str:
    """The turn's speaker. Raises ValueError for a name that holds a sign of the transcript."""
    name = turn.speaker
    if not name or ":" in name or "\n" in name or name != normalize(name):
        raise ValueError(f"not a speaker name: {name!r}")
    return name


def _is_field(value: str) -> bool:
    return bool(value) and value.isprintable() and not any(sign in value for sign in "[]·")
