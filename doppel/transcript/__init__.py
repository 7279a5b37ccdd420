"""The transcript: the one text form of a session, used by training and serving alike."""

from typing import TYPE_CHECKING

from doppel.transcript.base import (
    END_LOSS,
    FORMAT,
    FORMATS,
    ME,
    NEWLINE_SIGN,
    NO_LOSS,
    TEXT_LOSS,
    Encoded,
    Header,
    Transcript,
    Turn,
    TurnDecoder,
    escape_newlines,
    hour_bucket,
    normalize,
    pseudonym,
    render,
    unescape_newlines,
    weekday_name,
)
from doppel.transcript.chat import ChatTranscript
from doppel.transcript.serving import header_language, messages_left_out, serving_header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "END_LOSS",
    "FORMAT",
    "FORMATS",
    "ME",
    "NEWLINE_SIGN",
    "NO_LOSS",
    "TEXT_LOSS",
    "ChatTranscript",
    "Encoded",
    "Header",
    "Transcript",
    "Turn",
    "TurnDecoder",
    "escape_newlines",
    "header_language",
    "hour_bucket",
    "messages_left_out",
    "normalize",
    "open_transcript",
    "pseudonym",
    "render",
    "serving_header",
    "unescape_newlines",
    "weekday_name",
]


def open_transcript(tokenizer: "PreTrainedTokenizerBase", name: str = FORMAT) -> Transcript:
    """The transcript of one of the `FORMATS`, by its name in the manifest, for a base's tokenizer.

    Raises:
        UserError: the tokenizer cannot be used for it.
    """
    return {FORMATS["base"]: Transcript, FORMATS["chat"]: ChatTranscript}[name](tokenizer)
