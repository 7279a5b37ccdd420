"""What training settings are worth, measured as the adapter is served: the owner's replies after the daemon's prompts.

    python benchmarks/recipe.py CONFIG --tokens 110000 [--at 30000 60000] [--out FILE] [--quick] SETTING ...

CONFIG is a config.yaml whose data set is built. Each SETTING is a list of `key=value` joined by commas, with the keys
under `training:` (`learning_rate=1e-3,sessions_per_step=8`), `max_length` among them; `-` stands for the recommended
ones. Each is trained on as many tokens, without a time limit, so that other programs do not change the outcome; then
it reads replies of the validation split, which is where settings are chosen, and of the test split. `--at` reads in
the middle of the run as well, after so many tokens.

Every row has the change of bits per byte against the base, with the bootstrap interval over conversations, and against
the first setting on the same replies, which is the finer comparison. Rows are appended to FILE as they are measured;
settings that are in it are not trained again. Prints one JSON object last.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

import msgspec
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from doppel.config import Config, load_config
from doppel.reports.metrics import Interval
from doppel.transcript import TEXT_LOSS
from training.fidelity.served import MAX_PROMPT_TOKENS, ServedWindow, Serving, served_exchanges, served_windows
from training.fidelity.statistics import relative_change, sums_by_group
from training.lora.conditions import header_vocabulary
from training.lora.distributed import SINGLE_PROCESS
from training.lora.examples import MicroBatch, collate, count_tokens
from training.lora.memory import BatchLimit
from training.lora.model import token_losses
from training.lora.packing import tokens_per_batch
from training.lora.reduced_head import reduce_head
from training.lora.settings import ChosenValue
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan, make_plan, optimizer_steps
from training.run.schedule import Schedule
from training.run.setup import TrainingSetup, build_model, choose_hyperparameters, load_base, load_setup
from training.run.timings import PhaseTimer
from training.run.trainer import PersonaTrainer

LossesOf = Callable[[PeftModel | PreTrainedModel, MicroBatch], tuple[torch.Tensor, torch.Tensor]]
SPLITS = ("validation", "test")
SCORED_TOKENS = 3_000
"""Of the owner's replies, in each split."""


class Reading(msgspec.Struct):
    """The loss on each reply of the windows of a split, in nats, and the conversation it is from."""

    nats: list[float]
    conversations: list[str]

    def change(self, before: "Reading") -> Interval:
        """The change of the loss on the same replies."""
        after, earlier = (sums_by_group(reading.nats, reading.conversations) for reading in (self, before))
        return relative_change(after, earlier)


def main() -> None:
    """Trains and reads each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("settings", nargs="+", metavar="SETTING")
    parser.add_argument("--tokens", type=int, default=110_000, help="to train on with each setting")
    parser.add_argument("--at", type=int, nargs="*", default=[], help="tokens after which to read as well")
    parser.add_argument("--out", type=Path, help="JSON lines; settings that are in it are not trained again")
    parser.add_argument("--quick", action="store_true", help="read a tenth, train on a tenth")
    arguments = parser.parse_args()
    share = 10 if arguments.quick else 1
    config = load_config(arguments.config)
    bench = Bench(config, SCORED_TOKENS // share)
    stored = arguments.out.read_text(encoding="utf-8") if arguments.out and arguments.out.exists() else ""
    rows: list[dict[str, Any]] = [json.loads(line) for line in stored.splitlines()]
    for setting in arguments.settings:
        if any(row["setting"] == setting and row["tokens"] >= arguments.tokens * 0.9 for row in rows):
            continue
        for row in bench.run(setting, arguments.tokens // share, [at // share for at in arguments.at]):
            rows.append(row)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    print(json.dumps({"rows": [bench.report(row, rows[0]) for row in rows]}))


class Bench:
    """The data set, the base and what the base makes of the held-out replies."""

    def __init__(self, config: Config, scored_tokens: int) -> None:
        self._config = config
        self._setup = load_setup(config, None)
        self._base = load_base(self._setup)
        sessions = [session for split in self._setup.sessions.values() for session in split]
        serving = Serving(
            vocabulary=header_vocabulary(session.header for session in self._setup.sessions["train"]),
            zone=config.zone,
            history=config.reply.history,
            max_tokens=MAX_PROMPT_TOKENS,
        )
        self._windows = {
            split: served_windows(
                served_exchanges(sessions, self._setup.sessions[split], self._setup.transcript, serving),
                self._setup.transcript,
                scored_tokens,
            )
            for split in SPLITS
        }
        self._before = self.read(self._base)

    def run(
        self,
        setting: str,
        tokens: int,
        at: Sequence[int] = (),
        *,
        build: Callable[[TrainingSetup, PreTrainedModel, int, float], PeftModel] = build_model,
        trainer_type: type[PersonaTrainer] = PersonaTrainer,
        on_end: Callable[[PeftModel, PersonaTrainer], dict[str, dict[str, Reading]]] = lambda *_: {},
    ) -> list[dict[str, Any]]:
        """Trains with a setting; returns a row for each point at which it is read.

        Args:
            setting: `key=value` joined by commas, or `-`.
            tokens: to train on.
            at: tokens after which to read as well.
            build: adds the LoRA to the base.
            trainer_type: trains it.
            on_end: reads the trained model in other ways, by name and split; each becomes a row.
        """
        values = (
            {}
            if setting == "-"
            else {key: json.loads(value) for key, value in (pair.split("=") for pair in setting.split(","))}
        )
        setup = self._setup_with(values)
        plan = _plan(setup, self._base, values, tokens)
        torch.manual_seed(plan.seed)
        model = build(setup, self._base, plan.rank, plan.alpha)
        rows: list[dict[str, Any]] = []
        losses: list[float] = []
        done = 0

        def row(step: MetricsRow) -> dict[str, Any]:
            readings = {split: reading.nats for split, reading in self.read(model).items()}
            plain = {"setting": setting, "tokens": step.tokens, "steps": step.step, "seconds": step.seconds}
            return {**plain, "loss": sum(losses[-10:]) / len(losses[-10:]), "readings": readings}

        def on_step(step: MetricsRow) -> None:
            nonlocal done
            losses.append(step.loss or 0.0)
            print(setting, step.step, plan.steps, f"{step.loss:.3f}", step.tokens, file=sys.stderr, flush=True)
            if step.step == plan.steps or any(done < point <= step.tokens for point in at):
                rows.append(row(step))
            done = step.tokens

        trainer = trainer_type(
            model,
            plan,
            Schedule(plan.learning_rate, plan.steps),
            head=reduce_head(self._base, setup.train, plan.seed),
            steps=optimizer_steps(plan, setup.epochs),
            held_out=[],
            folder=None,
            listeners=[on_step],
            timer=PhaseTimer(),
            processes=SINGLE_PROCESS,
        )
        trainer.train()
        end = rows[-1]
        for name, readings in on_end(model, trainer).items():
            nats = {split: reading.nats for split, reading in readings.items()}
            rows.append({**end, "setting": f"{setting}, {name}", "readings": nats})
        model.unload()
        return rows

    def report(self, row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
        """A row for people: changes in percent with their intervals."""
        shown = {key: value for key, value in row.items() if key != "readings"}
        for split in SPLITS:
            before = self._before[split]
            reading, reference = (Reading(one["readings"][split], before.conversations) for one in (row, first))
            shown[split] = _percent(reading.change(before))
            shown[f"{split}_against_first"] = _percent(reading.change(reference))
        return shown

    def _setup_with(self, values: dict[str, Any]) -> TrainingSetup:
        if "max_length" not in values:
            return self._setup
        epochs = msgspec.structs.replace(self._setup.epochs, max_length=values["max_length"])
        length = ChosenValue(values["max_length"], None)
        return msgspec.structs.replace(self._setup, epochs=epochs, train=list(epochs.examples(0)), max_length=length)

    @torch.no_grad()
    def read(self, model: PeftModel | PreTrainedModel, losses_of: LossesOf = token_losses) -> dict[str, Reading]:
        """The losses on the replies of each split, by a function like `token_losses`."""
        return {split: _reading(model, windows, losses_of) for split, windows in self._windows.items()}


def _reading(model: PeftModel | PreTrainedModel, windows: Sequence[ServedWindow], losses_of: LossesOf) -> Reading:
    nats = []
    for window in windows:
        losses, loss_mask = losses_of(model, collate([window.example]))
        nats.append(float(losses[loss_mask == TEXT_LOSS].double().sum()))
    return Reading(nats, [window.session_id for window in windows])


def _percent(change: Interval) -> list[float]:
    """Value, lower and upper end."""
    return [round(100 * part, 2) for part in (change.value, change.low, change.high)]


def _plan(setup: TrainingSetup, base: Any, values: dict[str, Any], tokens: int) -> TrainingPlan:
    settings = setup.settings.model_copy(update=values)
    chosen = choose_hyperparameters(msgspec.structs.replace(setup, settings=settings), base)
    return make_plan(
        settings,
        msgspec.structs.replace(chosen, epochs=ChosenValue(tokens / count_tokens(setup.train), None)),
        examples=setup.train,
        max_tokens=tokens,
        is_short=False,
        tokens_per_second=1.0,
        batch=BatchLimit(tokens_per_batch(base)),
        device=setup.device,
        dtype=base.dtype,
        now=datetime.now(UTC),
    )


if __name__ == "__main__":
    main()
