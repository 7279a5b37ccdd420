"""How likely a model finds given continuations of a prompt: the prompt is read once, the continuations as one batch.

Knows tensors and tokens only.
"""

from collections.abc import Sequence

import torch
from transformers import Cache, PreTrainedModel

_PREFILL = 512
_AT_ONCE = 16  # positions whose logits are held together: a vocabulary is up to 262k numbers each


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]
) -> list[list[float]]:
    """log p of every token of each answer after the prompt, in nats, as the model has it: no temperature, no filter.

    Args:
        model: whatever adapter is in force in it counts.
        prompt: token ids, at least one.
        answers: token ids, which may be none.
    """
    if not any(answers):
        return [[] for _ in answers]
    cache: Cache | None = None
    for start in range(0, len(prompt), _PREFILL):
        chunk = torch.tensor([prompt[start : start + _PREFILL]], device=model.device)
        output = model(input_ids=chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
    first = output.logits[0, -1].float().log_softmax(-1)
    values = [[float(first[answer[0]])] if answer else [] for answer in answers]
    assert cache is not None
    cache.batch_repeat_interleave(len(answers))
    longest = max(map(len, answers))
    # What fills up a shorter answer comes after it, where it cannot be seen from.
    ids = torch.tensor([[*answer, *[prompt[0]] * (longest - len(answer))] for answer in answers], device=model.device)
    for start in range(0, longest - 1, _AT_ONCE):
        end = min(start + _AT_ONCE, longest - 1)
        logits = model(input_ids=ids[:, start:end], past_key_values=cache, use_cache=True).logits.float()
        found = logits.log_softmax(-1).gather(2, ids[:, start + 1 : end + 1, None])[:, :, 0].tolist()
        for value, row, answer in zip(values, found, answers, strict=True):
            value.extend(row[: max(0, len(answer) - 1 - start)])
    return values
