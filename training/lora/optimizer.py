"""AdamW with float32 state and master weights, for a model that computes in bfloat16.

A bfloat16 adapter multiplies several times faster than a float32 one, but cannot take small steps: a change of less
than 1/256 of a weight is lost. So the steps are taken on float32 copies, which are then rounded.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch


class MasterAdamW(torch.optim.AdamW):
    """AdamW over float32 copies of the given parameters.

    Args:
        working: the model's trainable parameters, any float dtype. Their gradients are read; after each step they
            are overwritten with the rounded masters.
        lr: learning rate.
        betas, weight_decay: as in `torch.optim.AdamW`.
    """

    def __init__(
        self,
        working: Iterable[torch.nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        self._working = list(working)
        masters = [torch.nn.Parameter(parameter.detach().float().clone()) for parameter in self._working]
        is_fused = all(master.is_cuda for master in masters)  # one kernel for all of them instead of several for each
        super().__init__(masters, lr=lr, betas=betas, weight_decay=weight_decay, fused=is_fused or None)

    @property
    def masters(self) -> list[torch.Tensor]:
        """The float32 copies, in the order of the parameters."""
        return [master.detach() for master in self.param_groups[0]["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One AdamW step on the masters from the working gradients."""
        masters = self.param_groups[0]["params"]
        for master, working in zip(masters, self._working, strict=True):
            master.grad = None if working.grad is None else working.grad.float()
        super().step(closure)
        for master, working in zip(masters, self._working, strict=True):
            working.copy_(master)
            master.grad = None
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the working gradients."""
        for working in self._working:
            working.grad = None

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state and the masters, so that a resumed run continues from the unrounded weights."""
        return {**super().state_dict(), "masters": self.masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores `state_dict`, masters included."""
        state = dict(state_dict)
        saved_masters = state.pop("masters")
        super().load_state_dict(state)
        masters = self.param_groups[0]["params"]
        for master, working, saved in zip(masters, self._working, saved_masters, strict=True):
            master.copy_(saved)
            working.copy_(master)
