"""Log-probabilities of given continuations of a prompt: one prefill, then all continuations as one batch."""

from collections.abc import Sequence

import torch
from transformers import Cache, PreTrainedModel

_PREFILL_TOKENS = 512
_POSITIONS = 16  # positions whose logits are in memory at once, each of up to 262k numbers


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Log-probability of every token of each answer after the prompt, in nats, without temperature or filters.

    Args:
        model: with the adapter that is active in it.
        prompt: token ids, at least one.
        answers: token ids; an answer may be empty.
    """
    if not any(answers):
        return [[] for _ in answers]
    cache: Cache | None = None
    for start in range(0, len(prompt), _PREFILL_TOKENS):
        chunk = torch.tensor([prompt[start : start + _PREFILL_TOKENS]], device=model.device)
        output = model(input_ids=chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
    first = output.logits[0, -1].float().log_softmax(-1)
    values = [[float(first[answer[0]])] if answer else [] for answer in answers]
    assert cache is not None
    cache.batch_repeat_interleave(len(answers))
    longest = max(map(len, answers))
    # Padding comes after an answer, where causal attention does not reach.
    ids = torch.tensor([[*answer, *[prompt[0]] * (longest - len(answer))] for answer in answers], device=model.device)
    for start in range(0, longest - 1, _POSITIONS):
        end = min(start + _POSITIONS, longest - 1)
        logits = model(input_ids=ids[:, start:end], past_key_values=cache, use_cache=True).logits.float()
        rows = logits.log_softmax(-1).gather(2, ids[:, start + 1 : end + 1, None])[:, :, 0].tolist()
        for value, row, answer in zip(values, rows, answers, strict=True):
            value.extend(row[: max(0, len(answer) - 1 - start)])
    return values
