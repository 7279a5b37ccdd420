"""The model being trained: a frozen base with a LoRA on every linear layer, its body and its head apart."""

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from doppel.errors import UserError
from doppel.i18n import tr
from training.lora.examples import Batch
from training.lora.head import supervised_losses
from training.lora.packing import hidden_states

_UNKNOWN_HEADS = ("logit_scale", "logits_scaling")


def add_lora(base: PreTrainedModel, rank: int, alpha: float, layers: Sequence[str] | None = None) -> PeftModel:
    """Freezes the base and puts a LoRA of the given rank on its linear layers, in the base's dtype.

    Args:
        layers: names of those that get one; None: all but the head.
    """
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft computes alpha / r in floats
        lora_dropout=0.0,
        target_modules="all-linear" if layers is None else list(layers),
        task_type="CAUSAL_LM",
    )
    build_model = get_peft_model(base, settings, autocast_adapter_dtype=False)
    assert isinstance(build_model, PeftModel)
    return build_model


def check_head(base: PreTrainedModel) -> None:
    """Raises UserError for a base whose head does more than a matrix product and a soft cap."""
    for name in _UNKNOWN_HEADS:
        if getattr(base.config, name, None) not in (None, 1, 1.0):
            raise UserError(
                tr(
                    "model.base: models of type {kind} cannot be trained yet (they scale their logits)",
                    kind=base.config.model_type,
                )
            )


def token_losses(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the supervised tokens of a micro-batch.

    Args:
        model: a causal language model, bare or with adapters.
        batch: a micro-batch; of one sequence if the model must not be packed.

    Returns:
        (N,) float32 losses in nats, differentiable, and (N,) their values in the loss mask.
    """
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    hidden = hidden_states(causal, batch)
    targets = batch.targets.to(hidden.device)
    losses = supervised_losses(
        hidden[targets - 1],  # the state at a position predicts the token at the next
        causal.get_output_embeddings().weight,
        batch.ids.to(hidden.device)[targets],
        getattr(causal.config.get_text_config(), "final_logit_softcapping", None),
    )
    return losses, batch.loss_mask.to(hidden.device)
