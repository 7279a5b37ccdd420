"""What a quantised base (`doppel.models.quantize`) asks of the adapter that is trained on it."""

import torch
from peft import PeftModel


def match_adapter_dtype(model: PeftModel, dtype: torch.dtype) -> None:
    """Gives the adapter the body's dtype, which it cannot read off quantised weights; beside float16 it is float32."""
    wanted = torch.float32 if dtype == torch.float16 else dtype
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(wanted)
