"""How servers name the settings of `Sampling`, and which ones they do not support.

A setting is sent only where it means the same on the server. An unsupported one is an error, as a reply under
other settings would not be the persona's.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from doppel.config import ReplySettings
from doppel.engine import Sampling
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript.safe_tokens import SafeTokenizer

Dialect = Literal["vllm", "sglang", "llamacpp", "openai"]
"""Whose setting names a server uses; `openai`: any other server, with only the settings of OpenAI's own API."""

_NEUTRAL = Sampling(top_k=0, top_p=1.0, min_p=0.0)
_ALWAYS_SUPPORTED = frozenset(
    {"temperature", "max_tokens", "seed", "dry_base", "dry_allowed_length", "breakers"}
)  # or without effect on their own
_WHOLE_CONTEXT = 2**16  # tokens, more than prompt and reply have: llama.cpp has no value for "all"
_MIN_BIAS = -100.0  # the lowest bias that OpenAI's API accepts

_EVERYWHERE = frozenset({"top_p", "presence_penalty", "frequency_penalty", "logit_bias"})
_SUPPORTED: dict[Dialect, frozenset[str]] = {
    "vllm": _EVERYWHERE | {"top_k", "min_p", "repetition_penalty", "bad_words"},
    # Its repetition penalty leaves out the prompt.
    "sglang": _EVERYWHERE | {"top_k", "min_p"},
    # Its presence and frequency penalties count the prompt too.
    "llamacpp": frozenset({"top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "dry_multiplier"})
    | {"logit_bias", "bad_words"},
    "openai": frozenset({"top_p", "presence_penalty", "frequency_penalty"}),  # biases need the server's own token ids
}
_NAMES = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp", "openai": "OpenAI API"}


def refusal(dialect: Dialect, sampling: Sampling) -> str | None:
    """One line that names the settings which the server does not support; None when it supports all."""
    used = [
        name
        for name in Sampling.__struct_fields__
        if name not in _ALWAYS_SUPPORTED and getattr(sampling, name) != getattr(_NEUTRAL, name)
    ]
    missing = [name for name in used if name not in _SUPPORTED[dialect]]
    if dialect == "llamacpp" and any(len(ids) != 1 for ids in sampling.bad_words):
        missing.append("bad_words")
    if not missing:
        return None
    off = ", ".join(f"{name}: {_as_yaml(getattr(_NEUTRAL, name))}" for name in missing)
    return tr(
        "{engine} does not support {settings}; set `reply: {{{off}}}` in config.yaml or choose another engine.backend",
        engine=_NAMES[dialect],
        settings=", ".join(missing),
        off=off,
    )


def check_reply(dialect: Dialect, reply: ReplySettings) -> None:
    """Raises UserError when config.yaml sets what the server does not support."""
    fields = (set(Sampling.__struct_fields__) & set(ReplySettings.model_fields)) - {"logit_bias", "bad_words"}
    if reason := refusal(dialect, Sampling(**{name: getattr(reply, name) for name in fields})):
        raise UserError(reason)


def parameters(
    dialect: Dialect, sampling: Sampling, tokenizer: SafeTokenizer, forbidden: Sequence[int] = ()
) -> dict[str, Any]:
    """The settings as fields of a request. Those that are off are sent too, as servers have their own defaults.

    Args:
        dialect: whose names to use.
        sampling: without settings that the server does not support (`refusal`).
        tokenizer: for words that are sent as text.
        forbidden: token ids that must never be sampled; not sent to servers whose token ids may differ from ours.
    """
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if dialect != "llamacpp":
        fields["presence_penalty"] = sampling.presence_penalty
        fields["frequency_penalty"] = sampling.frequency_penalty
    if dialect == "vllm":
        fields |= {"top_k": sampling.top_k or -1, "min_p": sampling.min_p}
        fields["repetition_penalty"] = sampling.repetition_penalty
        fields["bad_words"] = _words(sampling, tokenizer)
        fields["logit_bias"] = _biases(sampling, forbidden)
    elif dialect == "sglang":
        fields |= {"top_k": sampling.top_k or -1, "min_p": sampling.min_p, "logit_bias": _biases(sampling, forbidden)}
    elif dialect == "llamacpp":
        fields |= _llamacpp(sampling, tokenizer, forbidden)
    return {name: value for name, value in fields.items() if value is not None and value not in ({}, [])}


def _llamacpp(sampling: Sampling, tokenizer: SafeTokenizer, forbidden: Sequence[int]) -> dict[str, Any]:
    biases: list[list[Any]] = [[token, bias] for token, bias in sampling.logit_bias]
    biases += [[token, False] for token in (*(ids[0] for ids in sampling.bad_words), *forbidden)]  # false: never
    fields: dict[str, Any] = {
        "samplers": ["penalties", "dry", "temperature", "top_k", "top_p", "min_p", "typ_p"],  # in our order
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": _WHOLE_CONTEXT if sampling.repetition_penalty != 1 else 0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": biases,
        "dry_multiplier": sampling.dry_multiplier,
    }
    if sampling.seed is not None:
        fields["seed"] = sampling.seed % 2**32
    if sampling.dry_multiplier:
        ends = [tokenizer.decode([token]) for token in sorted(sampling.breakers - tokenizer.special)]
        fields |= {
            "dry_base": sampling.dry_base,
            "dry_allowed_length": sampling.dry_allowed_length,
            "dry_penalty_last_n": _WHOLE_CONTEXT,
            "dry_sequence_breakers": [text for text in dict.fromkeys(ends) if text and "\ufffd" not in text] or ["\n"],
        }
    return fields


def _biases(sampling: Sampling, forbidden: Sequence[int]) -> dict[str, float]:
    biases = {str(token): max(_MIN_BIAS, min(-_MIN_BIAS, bias)) for token, bias in sampling.logit_bias}
    return biases | {str(token): _MIN_BIAS for token in forbidden}


def _words(sampling: Sampling, tokenizer: SafeTokenizer) -> list[str]:
    """Forbidden words as text: vLLM tokenizes them itself, with and without a blank before them."""
    return list(dict.fromkeys(text for ids in sampling.bad_words if (text := tokenizer.decode(ids).strip())))


def _as_yaml(value: Any) -> str:
    return "[]" if value == () else msgspec.json.encode(value).decode()
