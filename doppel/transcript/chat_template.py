"""Finds out what a base's chat template writes around messages, by rendering placeholder messages.

A chat template is a program: it may look at the last message, insert today's date, or refuse a role. It runs once, on
placeholders, and the texts between them are kept. It never runs on what people write.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROUNDS = 3
_SYSTEM = "Qsystemq"
_USER = tuple(f"Quser{number}q" for number in range(_ROUNDS))
_ASSISTANT = tuple(f"Qassistant{number}q" for number in range(_ROUNDS - 1))

_DATE = {"%Y": "2024", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July", "%A": "Friday", "%H": "12", "%M": "00"}
_FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f".replace('{sign}', '{value}')" for sign, value in _DATE.items())
    + " }}{%- endmacro -%}"
)
"""Some templates insert today's date into the system message; training and serving need the same text."""


class Frame(msgspec.Struct, frozen=True):
    """The texts that a chat template writes around a header and alternating messages of user and persona.

    Attributes:
        before_header: the start of a conversation.
        before_user: between the header and the first user message.
        to_persona: between a user message and the persona's reply.
        to_user: between a reply of the persona and the next user message.
        blanks: a blank or nothing, to put before the text of the header, of user messages and of replies.
    """

    before_header: str
    before_user: str
    to_persona: str
    to_user: str
    blanks: tuple[str, str, str]


def read_template(tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """The frame of the tokenizer's chat template.

    The header is the system message. If a template has none, or does not put it first, the header is the start of the
    first user message. Thinking is switched off in templates that support it.

    Raises:
        UserError: there is no chat template, or it does not write the messages in order.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise UserError(
            tr("model.base: this model has no chat template, which transcript: chat needs; use transcript: base")
        ) from None
    for system in ((_SYSTEM,), ()):
        texts = _texts_between(tokenizer, _FIXED_CLOCK + template, system)
        if texts is not None:
            return _frame(texts, has_system=bool(system))
    raise UserError(
        tr(
            "model.base: its chat template reorders or changes messages, which transcript: chat does not support; use "
            "transcript: base"
        )
    )


def _texts_between(tokenizer: "PreTrainedTokenizerBase", template: str, system: Sequence[str]) -> list[str] | None:
    """The texts before, between and after the placeholders; None unless all appear once, in order."""
    messages = [{"role": "system", "content": text} for text in system]
    order = list(system)
    for number, user in enumerate(_USER):
        messages.append({"role": "user", "content": user})
        order.append(user)
        if number < len(_ASSISTANT):
            messages.append({"role": "assistant", "content": _ASSISTANT[number]})
            order.append(_ASSISTANT[number])
    try:
        rest = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
            thinking=False,
        )
    except Exception:  # noqa: BLE001 a template can fail in any way, and many do on purpose
        return None
    assert isinstance(rest, str)
    texts = []
    for placeholder in order:
        before, separator, rest = rest.partition(placeholder)
        if not separator:
            return None
        texts.append(before)
    texts.append(rest)
    if any(placeholder in text for text in texts for placeholder in order):
        return None
    *_, to_persona, to_user, to_persona_again, to_user_again, _ = texts
    return None if to_persona != to_persona_again or to_user != to_user_again else texts


def _frame(texts: list[str], *, has_system: bool) -> Frame:
    before_header, before_user, in_history, to_user, *_, generation_prompt = (
        texts if has_system else [texts[0], "\n\n", *texts[1:]]
    )
    to_persona = _reply_start(in_history, generation_prompt)
    # Tokenizers join a word and the blank before it into one token, so a trailing blank belongs to the message.
    return Frame(
        before_header=before_header.removesuffix(" "),
        before_user=before_user.removesuffix(" "),
        to_persona=to_persona.removesuffix(" "),
        to_user=to_user.removesuffix(" "),
        blanks=(_trailing_blank(before_header), _trailing_blank(to_user), _trailing_blank(to_persona)),
    )


def _trailing_blank(text: str) -> str:
    return " " if text.endswith(" ") else ""


def _reply_start(in_history: str, generation_prompt: str) -> str:
    """The markup before a reply: the template's generation prompt if it extends the markup before past replies.

    It does where it adds an empty thinking block because thinking is off (Qwen 3). It does not where it leaves a line
    end or a blank to the model (GLM 4, Llama 2). A prompt that leaves a thinking block open is not used.
    """
    is_thinking = generation_prompt.count("<think>") > generation_prompt.count("</think>")
    return generation_prompt if generation_prompt.startswith(in_history) and not is_thinking else in_history
