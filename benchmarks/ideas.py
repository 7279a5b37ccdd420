"""Ideas for more of the person from the same tokens, each tried once, measured as the adapter is served.

    python benchmarks/ideas.py CONFIG [--tokens 103000] [--out FILE] [--quick] [--only NAME ...]

CONFIG is a config.yaml whose data set is built. The settings are those of a first run. The ideas:

- average: the mean of the weights over the last fifth of the steps, instead of the last ones.
- contrast: at decoding, logits of the adapter plus a part of their difference to the base's.
- weak: also a fifth of the loss on what others wrote.
- upper: no LoRA in the lowest third of the layers, so that backward stops there.

Prints one JSON object last, with the rows of `recipe.py`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

import msgspec
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from benchmarks.recipe import SCORED_TOKENS, Bench, Reading
from doppel.config import load_config
from doppel.transcript import NO_LOSS
from training.lora.cpu_kernels.install import accelerate
from training.lora.examples import Example, MicroBatch, collate
from training.lora.model import add_lora, token_losses
from training.lora.packing import hidden_states
from training.run.setup import TrainingSetup
from training.run.trainer import PersonaTrainer

SETTING = "rank=16,learning_rate=1e-3"
AVERAGED = 0.2
CONTRASTS = (0.25, 0.5, 1.0)
OTHERS_WEIGHT = 0.2
_OTHERS_LOSS = 3
_HEADER_TOKENS = 32  # about; what a header says is not to be learned


def main() -> None:
    """Tries the ideas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--tokens", type=int, default=103_000)
    parser.add_argument("--out", type=Path, help="JSON lines, appended to")
    parser.add_argument("--only", nargs="*", default=["plain", "weak", "upper"], choices=["plain", "weak", "upper"])
    parser.add_argument("--quick", action="store_true", help="read a tenth, train on a tenth")
    arguments = parser.parse_args()
    share = 10 if arguments.quick else 1
    bench = Bench(load_config(arguments.config), SCORED_TOKENS // share)
    variants: dict[str, dict[str, Any]] = {
        "plain": {"trainer_type": AveragingTrainer, "on_end": partial(_read_otherwise, bench)},
        "weak": {"trainer_type": WeakTrainer},
        "upper": {"build": _add_upper_lora},
    }
    rows: list[dict[str, Any]] = []
    for name in arguments.only:
        for row in bench.run(SETTING, arguments.tokens // share, **variants[name]):
            rows.append({**row, "setting": f"{name}: {row['setting']}"})
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(json.dumps({"rows": [bench.report(row, rows[0]) for row in rows]}))


class AveragingTrainer(PersonaTrainer):
    """Remembers the mean of the weights over the last steps."""

    def _report(self, **values: float) -> None:
        super()._report(**values)
        if self.state.step <= self.plan.steps * (1 - AVERAGED):
            return
        if not hasattr(self, "sums"):
            self.count, self.sums = 0, {name: torch.zeros_like(value) for name, value in self.exact_weights().items()}
        self.count += 1
        for name, value in self.exact_weights().items():
            self.sums[name] += value


class WeakTrainer(PersonaTrainer):
    """Trains a little on what others wrote, too."""

    def _sum_of_group(self, group: Sequence[Example]) -> torch.Tensor:
        losses, loss_mask = token_losses(self.model, collate([_with_others(example) for example in group]), self._head)
        loss = torch.where(loss_mask == _OTHERS_LOSS, losses * OTHERS_WEIGHT, losses).sum()
        loss.backward()
        return loss.detach()


def _with_others(example: Example) -> Example:
    loss_mask = [
        _OTHERS_LOSS if loss == NO_LOSS and position >= _HEADER_TOKENS else loss
        for position, loss in enumerate(example.loss_mask)
    ]
    return msgspec.structs.replace(example, loss_mask=loss_mask)


def _add_upper_lora(setup: TrainingSetup, base: PreTrainedModel, rank: int, alpha: float) -> PeftModel:
    torch.manual_seed(setup.settings.seed)
    lowest = base.config.get_text_config().num_hidden_layers // 3
    layers = [
        name
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in f".{name}" and _layer_of(name) >= lowest
    ]
    model = add_lora(base, rank, alpha, layers)
    accelerate(model)
    return model


def _layer_of(name: str) -> int:
    return int(name.split("layers.")[1].split(".", maxsplit=1)[0])


def _read_otherwise(bench: Bench, model: PeftModel, trainer: AveragingTrainer) -> dict[str, dict[str, Reading]]:
    """With the mean of the last weights, and with contrasted logits."""
    readings = {f"contrast {part}": bench.read(model, partial(_contrasted_losses, part=part)) for part in CONTRASTS}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, total in trainer.sums.items():
            parameters[name].copy_(total / trainer.count)
    return {**readings, "average": bench.read(model)}


def _contrasted_losses(
    model: PeftModel | PreTrainedModel, batch: MicroBatch, *, part: float
) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(model, PeftModel)
    with_adapter = _logits(model, batch)
    with model.disable_adapter():
        without = _logits(model, batch)
    logits = with_adapter + part * (with_adapter - without)
    return cross_entropy(logits, batch.ids[batch.targets], reduction="none"), batch.loss_mask


def _logits(model: PeftModel, batch: MicroBatch) -> torch.Tensor:
    """Log-probabilities (S, V) at the supervised positions."""
    causal = model.get_base_model()
    states = hidden_states(causal, batch)[batch.targets - 1]
    return (states @ causal.get_output_embeddings().weight.T).float().log_softmax(-1)


if __name__ == "__main__":
    main()
