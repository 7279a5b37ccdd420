"""A few lines the model in training would write, so that its owner can watch it become them."""

import random
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, PreTrainedModel

from doppel.engine.local.sampling import TokenMask
from doppel.transcript import Header, Transcript, Turn
from training.dataset.files import Session
from training.lora.threads import one_thread

_CONTEXT_TURNS = 4
_MAX_PROMPT_CHARACTERS = 120
_NEW_TOKENS = 40


class SampleReplies:
    """Replies to a few held-out prompts, chosen once; each call samples with the same seed.

    Args:
        model: the causal language model with the adapter in it.
        transcript: for its tokenizer.
        sessions: held-out sessions to take prompts from.
        count: replies per call, besides one unprompted post.
        seed: of choice and sampling.
    """

    def __init__(
        self, model: PreTrainedModel, transcript: Transcript, sessions: Sequence[Session], count: int, seed: int
    ) -> None:
        self._model = model
        self._transcript = transcript
        self._seed = seed
        self._mask = _MaskLogits(TokenMask(transcript.forbidden_ids))
        candidates = _prompts(sessions)
        chosen = random.Random(seed).sample(candidates, min(count, len(candidates)))
        self._prompts: list[tuple[Header, tuple[Turn, ...]]] = [*chosen, (Header(kind="post"), ())]

    def __call__(self) -> list[str]:
        """One line per prompt: the message, and the persona's reply."""
        prompts = [self._transcript.prompt(header, turns) for header, turns in self._prompts]
        was_training = self._model.training
        self._model.eval()
        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(self._seed)
            replies = self._generate(prompts)
        self._model.train(was_training)
        return [self._line(turns, reply) for (_, turns), reply in zip(self._prompts, replies, strict=True)]

    def _generate(self, prompts: list[list[int]]) -> list[list[int]]:
        """The tokens of a reply to each prompt, sampled together: a token costs as much for all as for one."""
        longest = max(map(len, prompts))
        padding = self._transcript.tokenizer.pad_token_id or 0
        ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output = self._model.generate(  # type: ignore[operator]
            input_ids=ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            do_sample=True,
            temperature=0.9,
            top_k=64,
            top_p=0.95,
            max_new_tokens=_NEW_TOKENS,
            logits_processor=[self._mask],
            eos_token_id=sorted(self._transcript.stop_ids),
            pad_token_id=padding,
        )
        rows: list[list[int]] = output[:, longest:].tolist()
        return rows

    def _line(self, turns: tuple[Turn, ...], reply: list[int]) -> str:
        text = " / ".join(self._transcript.reply(reply)) or "…"
        message = f"{turns[-1].speaker}: {' / '.join(turns[-1].bubbles)}  →  " if turns else ""
        return f"   {message}me: {text}".replace("\n", " ")


class _MaskLogits(LogitsProcessor):
    """Applies a `TokenMask` in transformers' `generate`, whose own `suppress_tokens` sorts its list at every step."""

    def __init__(self, mask: TokenMask) -> None:
        self._mask = mask

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) without the masked tokens."""
        self._mask.apply(scores)
        return scores


def _prompts(sessions: Sequence[Session]) -> list[tuple[Header, tuple[Turn, ...]]]:
    """Places where the persona replied to a short message, with the turns before."""
    return [
        (session.header, session.turns[max(0, place - _CONTEXT_TURNS) : place])
        for session in sessions
        for place in range(1, len(session.turns))
        if session.turns[place].is_mine and len(" ".join(session.turns[place - 1].bubbles)) < _MAX_PROMPT_CHARACTERS
    ]
