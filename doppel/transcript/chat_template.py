"""What a base's chat template writes around messages, learned by showing it messages of which we know the text.

A chat template is a program that may do anything with a conversation: look at the last message, read today's
date, refuse a role. Here it runs once, on stand-ins, and what it wrote between them is kept; what people write
never gets near it. Knows Jinja's results; knows no tokens.
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
"""Some templates write today's date into the system message; training and serving must write the same."""


class Frame(msgspec.Struct, frozen=True):
    """The texts a chat template writes around a header and the messages of user and persona in turn.

    Attributes:
        before_header: what a conversation begins with.
        before_user: between the header and the first message of the user's.
        to_persona: between a message of the user's and one of the persona's.
        to_user: between a message of the persona's and one of the user's.
        blanks: a blank or nothing, which the header, messages of the user's and of the persona's begin with.
    """

    before_header: str
    before_user: str
    to_persona: str
    to_user: str
    blanks: tuple[str, str, str]


def read_template(tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """The frame of the tokenizer's chat template.

    The header is the system message; where a template refuses that, or does not put it first, the header opens
    the first message of the user's. Thinking is switched off in templates that know it.

    Raises:
        UserError: there is no chat template, or it does not write the messages one after the other.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise UserError(
            tr("transcript: chat wants a base model with a chat template; this one has none: use transcript: base")
        ) from None
    for system in ((_SYSTEM,), ()):
        glue = _glue(tokenizer, _FIXED_CLOCK + template, system)
        if glue is not None:
            return _frame(glue, has_system=bool(system))
    raise UserError(
        tr(
            "model.base: its chat template does not write messages one after the other, so transcript: chat cannot "
            "follow it; use transcript: base"
        )
    )


def _glue(tokenizer: "PreTrainedTokenizerBase", template: str, system: Sequence[str]) -> list[str] | None:
    """What stands before, between and after the stand-ins; None when they do not all come out in their order."""
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
    except Exception:  # noqa: BLE001 a template is somebody's program: it may fail in any way, most do on purpose
        return None
    assert isinstance(rest, str)
    glue = []
    for stand_in in order:
        before, found, rest = rest.partition(stand_in)
        if not found:
            return None
        glue.append(before)
    if any(one in text for text in (*glue, rest) for one in order):
        return None
    *_, asked, answered, asked_again, answered_again, _ = [*glue, rest]
    return None if asked != asked_again or answered != answered_again else [*glue, rest]


def _frame(glue: list[str], *, has_system: bool) -> Frame:
    before_header, before_user, in_history, to_user, *_, asked_for = (
        glue if has_system else [glue[0], "\n\n", *glue[1:]]
    )
    to_persona = _opening_of_a_reply(in_history, asked_for)
    # Tokenizers make one token of a word and the blank before it: the blank goes with the word.
    return Frame(
        before_header=before_header.removesuffix(" "),
        before_user=before_user.removesuffix(" "),
        to_persona=to_persona.removesuffix(" "),
        to_user=to_user.removesuffix(" "),
        blanks=(_blank_after(before_header), _blank_after(to_user), _blank_after(to_persona)),
    )


def _blank_after(text: str) -> str:
    return " " if text.endswith(" ") else ""


def _opening_of_a_reply(in_history: str, asked_for: str) -> str:
    """How a reply begins: as the template asks for one, if that adds to how it writes those of the past.

    It adds an empty thought where thinking is switched off (Qwen 3), and says less where a line end or a blank is
    left to the model (GLM 4, Llama 2). A thought that is begun and left open is not asked for.
    """
    is_thinking = asked_for.count("<think>") > asked_for.count("</think>")
    return asked_for if asked_for.startswith(in_history) and not is_thinking else in_history
