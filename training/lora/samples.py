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
_NEW_TOKENS = 40


class SampleReplies:
    """Chooses held-out situations once and answers them whenever asked, always from the same seed.

    Args:
        model: the causal language model with the adapter in it.
        transcript: for its tokenizer.
        sessions: held-out sessions to take situations from.
        count: how many replies a call gives, besides one line said unprompted.
        seed: of choice and sampling.
    """

    def __init__(
        self, model: PreTrainedModel, transcript: Transcript, sessions: Sequence[Session], count: int, seed: int
    ) -> None:
        self._model = model
        self._transcript = transcript
        self._seed = seed
        self._mask = _MaskLogits(TokenMask(transcript.forbidden_ids))
        chosen = random.Random(seed).sample(situations := _situations(sessions), min(count, len(situations)))
        unprompted = (Header(kind="post"), ())
        self._situations: list[tuple[Header, tuple[Turn, ...]]] = [*chosen, unprompted]

    def __call__(self) -> list[str]:
        """One line a situation: what was said, and what the persona answers."""
        was_training = self._model.training
        self._model.eval()
        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(self._seed)
            lines = [self._line(header, turns) for header, turns in self._situations]
        self._model.train(was_training)
        return lines

    def _line(self, header: Header, turns: tuple[Turn, ...]) -> str:
        prompt = self._transcript.prompt(header, turns)
        ids = torch.tensor([prompt], device=self._model.device)
        made = self._model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=0.9,
            top_k=64,
            top_p=0.95,
            max_new_tokens=_NEW_TOKENS,
            eos_token_id=sorted(self._transcript.stop_ids),
            pad_token_id=self._transcript.tokenizer.pad_token_id or 0,
            logits_processor=[self._mask],
        )
        reply = " / ".join(self._transcript.reply(made[0, len(prompt) :].tolist())) or "…"
        heard = f"{turns[-1].speaker}: {' / '.join(turns[-1].bubbles)}  →  " if turns else ""
        return f"   {heard}me: {reply}".replace("\n", " ")


class _MaskLogits(LogitsProcessor):
    """A `TokenMask` for transformers' `generate`, whose own `suppress_tokens` sorts the list at every step."""

    def __init__(self, mask: TokenMask) -> None:
        self._mask = mask

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) with the masked tokens ruled out."""
        self._mask.apply(scores)
        return scores


def _situations(sessions: Sequence[Session]) -> list[tuple[Header, tuple[Turn, ...]]]:
    """Places where the persona answered somebody, with a few turns before it."""
    return [
        (session.header, session.turns[max(0, at - _CONTEXT_TURNS) : at])
        for session in sessions
        for at in range(1, len(session.turns))
        if session.turns[at].is_mine and len(" ".join(session.turns[at - 1].bubbles)) < 120
    ]
