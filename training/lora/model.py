"""The model being trained: a frozen base with a LoRA on its linear layers, and the losses of a micro-batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from doppel.errors import UserError
from doppel.i18n import tr
from training.lora.examples import MicroBatch
from training.lora.head import supervised_losses
from training.lora.packing import hidden_states
from training.lora.reduced_head import ReducedHead

_HALF_PRECISION = (torch.bfloat16, torch.float16)
_UNSUPPORTED_HEAD_OPTIONS = ("logit_scale", "logits_scaling")


def add_lora(base: PreTrainedModel, rank: int, alpha: float, layers: Sequence[str] | None = None) -> PeftModel:
    """Freezes the base and adds a LoRA to its linear layers, in the base's dtype.

    Args:
        base: the base model.
        rank: of the LoRA.
        alpha: the LoRA's output is scaled by alpha / rank.
        layers: names of the layers to adapt; None means all but the head.
    """
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft computes alpha / r in floats
        lora_dropout=0.0,
        target_modules="all-linear" if layers is None else list(layers),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, settings, autocast_adapter_dtype=False)
    assert isinstance(model, PeftModel)
    return model


def match_adapter_dtype(model: PeftModel, dtype: torch.dtype) -> None:
    """Gives the adapter of a quantised base the dtype that the base computes in; float32 if that is float16.

    PEFT cannot tell that dtype from quantised weights.
    """
    adapter_dtype = torch.float32 if dtype == torch.float16 else dtype
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapter_dtype)


def save_adapter(model: PeftModel, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes the adapter in PEFT's format, in the smallest dtype that holds its weights exactly.

    Args:
        model: with the adapter.
        folder: is created if it does not exist.
        weights: the adapter's weights by parameter name, in place of the rounded ones that the model computes with.

    Raises:
        OSError: a file cannot be written.
    """
    dtype = next((dtype for dtype in _HALF_PRECISION if _holds(dtype, weights)), torch.float32)
    exact = {name: weight.to(dtype) for name, weight in weights.items()}
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=exact)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def _holds(dtype: torch.dtype, weights: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in weights.values())


def check_head(base: PreTrainedModel) -> None:
    """Raises UserError for a base whose head does more than a matrix product and a soft cap."""
    for name in _UNSUPPORTED_HEAD_OPTIONS:
        if getattr(base.config, name, None) not in (None, 1, 1.0):
            raise UserError(
                tr(
                    "model.base: models of type {kind} cannot be trained yet (they scale their logits)",
                    kind=base.config.model_type,
                )
            )


def token_losses(
    model: torch.nn.Module, batch: MicroBatch, head: ReducedHead | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the supervised tokens of a micro-batch.

    Args:
        model: a causal language model, bare or with adapters.
        batch: a micro-batch; of one sequence if the model must not be packed.
        head: to train with, unless a token is not in it; None: the model's own, to score with.

    Returns:
        (S,) float32 losses in nats, differentiable, and (S,) their values in the loss mask.
    """
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    hidden = hidden_states(causal, batch)
    targets = batch.targets.to(hidden.device)
    states = hidden[targets - 1]  # the state at a position predicts the token at the next
    tokens = batch.ids.to(hidden.device)[targets]
    softcap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
    if head is None or not bool((head.rows[tokens] >= 0).all()):
        losses = supervised_losses(states, causal.get_output_embeddings().weight, tokens, softcap)
    else:
        losses = supervised_losses(states, head.weight, head.rows[tokens], softcap, head.bias)
    return losses, batch.loss_mask.to(hidden.device)
