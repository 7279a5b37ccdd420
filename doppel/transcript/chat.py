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

The header is the system message, what others say until the persona speaks is one message of the user's, a turn
of the persona's is one of the assistant's; a line is a bubble. Lines of others begin with the speaker's name,
except in a `dm`. Where the persona speaks first, or again, it answers a message of the user's that is empty. The
template is not run on anybody's text: its marks are put around tokens that can stand for none of them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript.base import (
    FORMATS,
    ME,
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
"""Whom `decode` names as the speaker in a `dm` whose header does not."""

_BRACKETS = {"[": "]", "<": ">", "{": "}"}


class ChatTranscript(Transcript):
    """A `Transcript` in the marks of the tokenizer's chat template.

    Training and serving build the same tokens for a turn wherever it stands: past replies are written as the one
    being asked for is, also by templates that would shorten them (Qwen 3 leaves out the empty thought).

    Args:
        tokenizer: a fast transformers tokenizer with a chat template.

    Raises:
        UserError: there is no template, it does not say where a reply ends, or the tokenizer loses line breaks.
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
        self._end = _end_of_a_reply(self._to_user, self.safe_tokenizer)
        self._written = _written_marks(frame, self.safe_tokenizer)
        template = tokenizer.get_chat_template()
        named = {one for one, text in self.safe_tokenizer.reserved.items() if _is_bracketed(text) and text in template}
        self.stop_ids = self.safe_tokenizer.special.union(named, self._end[-1:])
        self.forbidden_ids = self._forbidden(self._end[-1:])
        marks = (self._before_header, self._before_user, self._me, self._to_user, frame.blanks)
        self.template = hashlib.sha256(repr(marks).encode()).hexdigest()

    def decode(self, ids: Iterable[int]) -> tuple[str, list[Turn]]:
        """Reads back the header line and the turns of `encode`d ids. Bubbles come out normalized.

        In a `dm`, consecutive turns of others come out as one, as their lines name nobody.
        """
        header, rest = _partition(list(ids)[len(self._before_header) :], self._before_user)
        line = self.safe_tokenizer.decode(header).strip()
        turns = []
        while rest:
            heard, rest = _partition(rest, self._me)
            turns += _turns_of_others(self.safe_tokenizer.decode(heard), line)
            if rest:
                said, rest = _partition(rest, self._to_user)
                turns.append(Turn(ME, tuple(map(unescape_newlines, self.safe_tokenizer.decode(said).split("\n")))))
        return line, turns

    def _opening(self, header: Header) -> list[int]:
        line = self._line(self._header_blank, header.render())
        return self._before_header + self.safe_tokenizer.encode_text([line], "\n")[0] + self._before_user

    def _blocks(self, header: Header, turns: Sequence[Turn], learned: str) -> Iterator[tuple[list[int], list[int]]]:
        """Tokens and roles of each turn. Every one begins and ends inside a message of the user's."""
        is_named = header.kind != "dm"
        texts = self._tokens([line for turn in turns for line in self._lines(turn, learned, is_named)])
        for turn, following in pairwise([*turns, None]):
            assert turn is not None
            lines = list(islice(texts, len(turn.bubbles)))
            if turn.speaker == learned:
                yield self._learned_block(lines)
                continue
            ids = _joined(lines, self._bubble_end)
            if following is not None and following.speaker != learned:
                ids += self._bubble_end
            yield ids, [0] * len(ids)

    def _learned_block(self, lines: Sequence[list[int]]) -> tuple[list[int], list[int]]:
        ids, roles = list(self._me), [0] * len(self._me)
        last = len(lines) - 1
        for position, text in enumerate(lines):
            end = self._end if position == last else self._bubble_end
            ids += text + end
            roles += [1] * len(text) + [2] * len(end)
        rest = self._to_user[len(self._end) :]
        return ids + rest, roles + [0] * len(rest)

    def _lines(self, turn: Turn, learned: str, is_named: bool) -> Iterator[str]:
        for bubble in checked_bubbles(turn):
            if turn.speaker == learned:
                yield self._line(self._persona_blank, escape_newlines(bubble))
            elif is_named:
                yield self._line(self._user_blank, f"{checked_speaker(turn)}: {escape_newlines(bubble)}")
            else:
                checked_speaker(turn)
                yield self._line(self._user_blank, escape_newlines(bubble))

    def _line(self, blank: str, text: str) -> str:
        """A line in which no mark of a template that writes its marks as plain text is spelled."""
        for mark in self._written:
            while mark in text:
                text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return blank + text

    def _tokens(self, lines: list[str]) -> Iterator[list[int]]:
        """Token ids of the lines; one tokenizer call for all of them."""
        for ids in self.safe_tokenizer.encode_text(lines, "\n"):
            # Some tokenizers change what they read; a line that becomes a mark that way is left out.
            changed = self.safe_tokenizer.decode(ids) if self._written else ""
            yield [] if any(mark in changed for mark in self._written) else ids


def _end_of_a_reply(to_user: list[int], tokenizer: SafeTokenizer) -> list[int]:
    """What a reply ends in: the marks that lead to the user, up to the first that nobody can write."""
    at = next((at for at, token in enumerate(to_user) if token in tokenizer.reserved), None)
    if at is None:
        raise _anybody_can_write()
    return to_user[: at + 1]


def _written_marks(frame: Frame, tokenizer: SafeTokenizer) -> tuple[str, ...]:
    """The template's marks that are plain text to the tokenizer, so that a text could spell them.

    These are words in brackets, like `[/INST]`, and what asks for a reply if no token in it is reserved. Names of
    roles after such a token, as in ChatML, mean nothing by themselves.
    """
    found = set()
    for text in (frame.before_header, frame.before_user, frame.to_persona, frame.to_user):
        plain = text
        for spelling in tokenizer.reserved.values():
            plain = plain.replace(spelling, " ")
        found |= {word for word in plain.split() if _is_bracketed(word)}
    if tokenizer.reserved.keys().isdisjoint(tokenizer.encode_markup(frame.to_persona, "a")):
        lines = {line.strip() for line in frame.to_persona.splitlines()} - {""}
        if not lines or min(map(len, lines)) < 2:
            raise _anybody_can_write()
        found |= lines
    return tuple(sorted(found, key=len, reverse=True))


def _anybody_can_write() -> UserError:
    return UserError(
        tr(
            "model.base: its chat template marks turns with text that anybody can write, so transcript: chat cannot "
            "follow it; use transcript: base"
        )
    )


def _is_bracketed(text: str) -> bool:
    return len(text) > 2 and _BRACKETS.get(text[0]) == text[-1]


def _joined(lines: Sequence[list[int]], separator: list[int]) -> list[int]:
    ids = list(lines[0])
    for line in lines[1:]:
        ids += separator + line
    return ids


def _partition(ids: list[int], mark: list[int]) -> tuple[list[int], list[int]]:
    """What stands before the first occurrence of a mark, and after it."""
    size = len(mark)
    at = next((at for at in range(len(ids)) if ids[at : at + size] == mark), len(ids))
    return ids[:at], ids[at + size :]


def _turns_of_others(text: str, header: str) -> list[Turn]:
    """The turns in a message of the user's."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    fields = header.strip("[]").split(" \u00b7 ")
    if any(field.split()[-1:] == ["dm"] for field in fields):
        name = next((field.removeprefix("with ") for field in fields if field.startswith("with ")), CONTACT)
        return [Turn(name, tuple(map(unescape_newlines, lines)))] if lines else []
    said = [line.split(":", 1) for line in lines]
    return [
        Turn(speaker, tuple(unescape_newlines(bubble) for _, bubble in bubbles))
        for speaker, bubbles in groupby(said, key=lambda pair: pair[0])
    ]
