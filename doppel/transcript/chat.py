"""The transcript for instruct models: a session as a conversation in the base's own chat template.

    <|im_start|>system
    [2018 Tue evening · telegram group · en]<|im_end|>
    <|im_start|>user
    Ramito: hello
    Ramito: how are you
    Bobotu: hi<|im_end|>
    <|im_start|>assistant
    fine!
    and you?<|im_end|>

The header is the system message. Everything others write before a turn of the persona is one user message, and the
turn is one assistant message; each line is a bubble. Lines of others begin with the speaker's name, except in a `dm`.
If the persona writes first, or twice in a row, the user message in between is empty. The template never runs on
people's text: its markup is placed around their tokens, none of which can be markup.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript.base import (
    END_LOSS,
    FORMATS,
    ME,
    NO_LOSS,
    TEXT_LOSS,
    Header,
    Transcript,
    Turn,
    checked_bubbles,
    checked_speaker,
    escape_newlines,
    unescape_newlines,
)
from doppel.transcript.chat_template import Frame, read_template
from doppel.transcript.safe_tokens import SafeTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTACT = "you"
"""The speaker's name that `decode` returns for a `dm` whose header names no contact."""

_BRACKETS = {"[": "]", "<": ">", "{": "}"}


class ChatTranscript(Transcript):
    """A `Transcript` in the tokenizer's chat template.

    A turn has the same tokens in training and in serving, wherever it stands: past replies are written like the one
    being generated, even if the template would shorten them (Qwen 3 leaves out the empty thinking block).

    Args:
        tokenizer: a fast transformers tokenizer with a chat template.

    Raises:
        UserError: there is no template, no token marks the end of a reply, or the tokenizer loses line breaks.
    """

    format = FORMATS["chat"]
    ends_at_empty_line = False

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        super().__init__(tokenizer)
        frame = read_template(tokenizer)
        self._header_blank, self._user_blank, self._persona_blank = frame.blanks
        self._before_header = self.safe_tokenizer.encode_markup(frame.before_header)
        self._before_user = self.safe_tokenizer.encode_markup(frame.before_user, "a")
        self._me = self.safe_tokenizer.encode_markup(frame.to_persona, "a")
        self._to_user = self.safe_tokenizer.encode_markup(frame.to_user, "a")
        self._reply_end = _reply_end(self._to_user, self.safe_tokenizer)
        self._plain_marks = _plain_text_marks(frame, self.safe_tokenizer)
        template = tokenizer.get_chat_template()
        reserved = self.safe_tokenizer.reserved.items()
        template_ids = {token for token, text in reserved if _is_bracketed(text) and text in template}
        self.stop_ids = self.safe_tokenizer.special.union(template_ids, self._reply_end[-1:])
        self.forbidden_ids = self._forbidden(self._reply_end[-1:])
        digested = (self._before_header, self._before_user, self._me, self._to_user, frame.blanks)
        self.template = hashlib.sha256(repr(digested).encode()).hexdigest()

    def decode(self, ids: Iterable[int]) -> tuple[str, list[Turn]]:
        """The header line and the turns of ids from `encode`; bubbles are normalized.

        In a `dm`, consecutive turns of others are joined into one, because their lines name no speaker.
        """
        header_ids, rest = _partition(list(ids)[len(self._before_header) :], self._before_user)
        header = self.safe_tokenizer.decode(header_ids).strip()
        turns = []
        while rest:
            user_ids, rest = _partition(rest, self._me)
            turns += _turns_of_others(self.safe_tokenizer.decode(user_ids), header)
            if rest:
                reply_ids, rest = _partition(rest, self._to_user)
                lines = self.safe_tokenizer.decode(reply_ids).split("\n")
                turns.append(Turn(ME, tuple(map(unescape_newlines, lines))))
        return header, turns

    def _opening(self, header: Header) -> list[int]:
        line = self._header_blank + self._break_marks(header.render())
        return self._before_header + self.safe_tokenizer.encode_text([line], "\n")[0] + self._before_user

    def _blocks(self, header: Header, turns: Sequence[Turn], learned: str) -> Iterator[tuple[list[int], list[int]]]:
        """Tokens and loss mask of each turn. Each block begins and ends within a user message."""
        names_speakers = header.kind != "dm"
        encoded_lines = self._encode_lines(
            [line for turn in turns for line in self._lines(turn, learned, names_speakers)]
        )
        for turn, next_turn in pairwise([*turns, None]):
            assert turn is not None
            lines = list(islice(encoded_lines, len(turn.bubbles)))
            if turn.speaker == learned:
                yield self._learned_block(lines)
                continue
            ids = _join(lines, self._bubble_end)
            if next_turn is not None and next_turn.speaker != learned:
                ids += self._bubble_end
            yield ids, [NO_LOSS] * len(ids)

    def _learned_block(self, lines: Sequence[list[int]]) -> tuple[list[int], list[int]]:
        """An assistant message with the markup around it."""
        ids, loss_mask = list(self._me), [NO_LOSS] * len(self._me)
        last = len(lines) - 1
        for position, line in enumerate(lines):
            end = self._reply_end if position == last else self._bubble_end
            ids += line + end
            loss_mask += [TEXT_LOSS] * len(line) + [END_LOSS] * len(end)
        rest = self._to_user[len(self._reply_end) :]
        return ids + rest, loss_mask + [NO_LOSS] * len(rest)

    def _lines(self, turn: Turn, learned: str, names_speakers: bool) -> Iterator[str]:
        """A turn's bubbles as the lines of a message."""
        is_learned = turn.speaker == learned
        speaker = "" if is_learned else checked_speaker(turn)
        for bubble in checked_bubbles(turn):
            line = escape_newlines(bubble)
            if is_learned:
                yield self._persona_blank + self._break_marks(line)
            elif names_speakers:
                yield self._user_blank + self._break_marks(f"{speaker}: {line}")
            else:
                yield self._user_blank + self._break_marks(line)

    def _break_marks(self, text: str) -> str:
        """Puts a blank into every plain-text mark of the template that the text contains."""
        for mark in self._plain_marks:
            while mark in text:
                text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def _encode_lines(self, lines: list[str]) -> Iterator[list[int]]:
        """Token ids of the lines, by one call of the tokenizer."""
        for ids in self.safe_tokenizer.encode_text(lines, "\n"):
            # Some tokenizers normalize text. A line that turns into a mark that way is dropped.
            decoded = self.safe_tokenizer.decode(ids) if self._plain_marks else ""
            yield [] if any(mark in decoded for mark in self._plain_marks) else ids


def _reply_end(to_user: list[int], tokenizer: SafeTokenizer) -> list[int]:
    """The markup that ends a reply: the start of `to_user`, up to its first reserved token.

    Raises:
        UserError: there is no reserved token in it.
    """
    position = next((position for position, token in enumerate(to_user) if token in tokenizer.reserved), None)
    if position is None:
        raise _plain_text_error()
    return to_user[: position + 1]


def _plain_text_marks(frame: Frame, tokenizer: SafeTokenizer) -> tuple[str, ...]:
    """The template's marks that are plain text to the tokenizer, so that people's text could contain them.

    These are words in brackets, like `[/INST]`, and the start of a reply if it has no reserved token. Names of roles
    after a reserved token, as in ChatML, mean nothing by themselves.

    Raises:
        UserError: a reply starts with nothing, or with a single character.
    """
    marks = set()
    for text in (frame.before_header, frame.before_user, frame.to_persona, frame.to_user):
        plain = text
        for spelling in tokenizer.reserved.values():
            plain = plain.replace(spelling, " ")
        marks |= {word for word in plain.split() if _is_bracketed(word)}
    if tokenizer.reserved.keys().isdisjoint(tokenizer.encode_markup(frame.to_persona, "a")):
        lines = {line.strip() for line in frame.to_persona.splitlines()} - {""}
        if not lines or min(map(len, lines)) < 2:
            raise _plain_text_error()
        marks |= lines
    return tuple(sorted(marks, key=len, reverse=True))


def _plain_text_error() -> UserError:
    return UserError(
        tr(
            "model.base: its chat template separates messages by plain text, which a message could imitate; use "
            "transcript: base"
        )
    )


def _is_bracketed(text: str) -> bool:
    return len(text) > 2 and _BRACKETS.get(text[0]) == text[-1]


def _join(lines: Sequence[list[int]], separator: list[int]) -> list[int]:
    ids = list(lines[0])
    for line in lines[1:]:
        ids += separator + line
    return ids


def _partition(ids: list[int], mark: list[int]) -> tuple[list[int], list[int]]:
    """The ids before and after the first occurrence of a mark, like `str.partition`."""
    size = len(mark)
    start = next((start for start in range(len(ids)) if ids[start : start + size] == mark), len(ids))
    return ids[:start], ids[start + size :]


def _turns_of_others(text: str, header: str) -> list[Turn]:
    """The turns in a user message."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    fields = header.strip("[]").split(" \u00b7 ")
    if any(field.split()[-1:] == ["dm"] for field in fields):
        name = next((field.removeprefix("with ") for field in fields if field.startswith("with ")), CONTACT)
        return [Turn(name, tuple(map(unescape_newlines, lines)))] if lines else []
    named_bubbles = [line.split(":", 1) for line in lines]
    return [
        Turn(speaker, tuple(unescape_newlines(bubble) for _, bubble in bubbles))
        for speaker, bubbles in groupby(named_bubbles, key=lambda pair: pair[0])
    ]
