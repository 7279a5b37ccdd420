"""Finds the temperature, top_p and min_p that write most like the owner: a small grid on the validation conversations.

The test conversations are not used, so that the examination's results stay unbiased. Each setting replies to the same
situations with the same random numbers, so that differences come from the settings. The best of many trials looks
better than it is, so it is compared once more with the current setting, with other random numbers.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from doppel.adapters.update import update_version
from doppel.adapters.versions import version_folder
from doppel.config import Config, ReplySettings
from doppel.engine import Sampling
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.persona import read_persona
from doppel.reports.metrics import Interval, by_name
from doppel.terminal import print_status, progress
from training.dataset.files import Session, read_sessions
from training.fidelity.adapted_model import AdaptedModel, load_adapted_model
from training.fidelity.generate import actual_replies, generate_replies
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.measures.relevance import relevance
from training.fidelity.measures.two_sample import classifier_auc
from training.fidelity.served import Exchange, Serving, served_exchanges, serving_of
from training.fidelity.texts import MIN_EXCHANGES
from training.lora.examples import sample_evenly

SETTINGS = ("temperature", "top_p", "min_p")
_TEMPERATURES = (0.7, 0.9, 1.1)
_FILTERS = ((0.9, 0.0), (0.95, 0.02), (1.0, 0.05))
"""Pairs of top_p and min_p, from filtering by cumulative probability to filtering by relative probability."""
_REPLIES, _QUICK_REPLIES = 96, 40


class SamplingTrial(msgspec.Struct, frozen=True):
    """One setting and how its replies compare with the owner's.

    Attributes:
        temperature, top_p, min_p: the setting.
        auc: of a classifier that separates its replies from the owner's; 0.5 is chance.
        distance: between its writing habits and the owner's.
        relevance: how often a reply fits the message it answers better than another message.
    """

    temperature: float
    top_p: float
    min_p: float
    auc: float
    distance: float
    relevance: Interval

    @property
    def score(self) -> float:
        """Distance from the owner, 0 is best: the sum of two measures, each about 1 for another person."""
        score = 2 * max(0.0, self.auc - 0.5) + self.distance
        return score if math.isfinite(score) else math.inf

    @property
    def setting(self) -> dict[str, float]:
        """The setting as the manifest stores it."""
        return {name: getattr(self, name) for name in SETTINGS}


class SamplingResult(msgspec.Struct, frozen=True):
    """The outcome for one version.

    Attributes:
        version: its number.
        trials: of every setting; the first is the setting in force before.
        again: a second trial of that setting and of the best other; empty if no other was better.
        chosen: one of `trials`.
    """

    version: str
    trials: list[SamplingTrial]
    again: list[SamplingTrial]
    chosen: SamplingTrial

    def result(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "version": self.version,
            "trials": msgspec.to_builtins(self.trials),
            "again": msgspec.to_builtins(self.again),
            "sampling": self.chosen.setting,
        }


def tune_sampling(config: Config, version: str | None, *, quick: bool) -> SamplingResult:
    """Finds a published version's best sampling and writes it into its manifest.

    Args:
        config: the configuration.
        version: its number; None means the one in use.
        quick: use fewer replies.

    Raises:
        UserError: there is no such version, or too few validation replies.
        AdapterRefused: it is damaged, or made for another base.
    """
    folder = version_folder(config.adapters_dir, None if version is None else version.zfill(4))
    sampling = read_persona(folder).sampling(config.reply)
    model = load_adapted_model(config.model, folder)
    serving = serving_of(config, model.manifest, model.context_length)
    sessions = list(read_sessions(config.data_dir))
    prompts = _validation_prompts(sessions, model, serving, _QUICK_REPLIES if quick else _REPLIES)
    candidates = candidate_settings(sampling)
    total = (len(candidates) + 2) * len(prompts)
    with progress() as bar:
        task = bar.add_task(tr("Trying sampling settings"), total=total, rate="")
        trials, again, chosen = search(
            candidates,
            lambda candidate, seed: run_trial(model, prompts, candidate, partial(bar.advance, task), seed),
        )
        bar.update(task, completed=total)
    update_version(
        folder, lambda _, manifest: msgspec.structs.replace(manifest, sampling={**manifest.sampling, **chosen.setting})
    )
    _print_chosen(config.reply, folder, chosen)
    return SamplingResult(folder.name, trials, again, chosen)


def candidate_settings(current: Sampling) -> list[Sampling]:
    """The setting in force, then the grid."""
    grid = [
        msgspec.structs.replace(current, temperature=temperature, top_p=top_p, min_p=min_p)
        for temperature in _TEMPERATURES
        for top_p, min_p in _FILTERS
    ]
    return [current, *(candidate for candidate in grid if candidate != current)]


def search(
    candidates: Sequence[Sampling], run: Callable[[Sampling, int], SamplingTrial]
) -> tuple[list[SamplingTrial], list[SamplingTrial], SamplingTrial]:
    """Tries every setting, and the best one again; returns the trials, the second trials, and the chosen trial.

    Args:
        candidates: the settings; the first is in force.
        run: runs a trial of a setting with a random seed.
    """
    trials = [run(candidate, 0) for candidate in candidates]
    best = trials.index(choose(trials))
    again = [run(candidates[number], 1) for number in (0, best)] if best else []
    return trials, again, trials[best] if again and choose(again) is again[1] else trials[0]


def run_trial(
    model: AdaptedModel,
    prompts: Sequence[Exchange],
    sampling: Sampling,
    on_progress: Callable[[int], None] = lambda _: None,
    seed: int = 0,
) -> SamplingTrial:
    """Generates a reply to every prompt and measures the replies."""
    written, actual = generate_replies(model, prompts, sampling, on_progress, seed=seed), actual_replies(prompts)
    has_text = any(reply.bubbles for reply in written)
    distance = (
        by_name(habit_metrics(written, [], actual, []))["habits_distance"].estimate.value if has_text else math.nan
    )
    auc = classifier_auc(written, actual).value if has_text else math.nan
    return SamplingTrial(
        sampling.temperature, sampling.top_p, sampling.min_p, auc, distance, relevance(model, (written,))[0]
    )


def choose(trials: Sequence[SamplingTrial]) -> SamplingTrial:
    """The trial closest to the owner among those that are not significantly less relevant than the first.

    A trial is less relevant if its relevance is below the first one's interval. Of equals the first wins, so that the
    setting in force stays unless another is better.
    """
    min_relevance = trials[0].relevance.low
    relevant = [trial for trial in trials[1:] if math.isnan(min_relevance) or trial.relevance.value >= min_relevance]
    return min([trials[0], *relevant], key=lambda trial: trial.score)


def _validation_prompts(
    sessions: Sequence[Session], model: AdaptedModel, serving: Serving, count: int
) -> list[Exchange]:
    validation = [session for session in sessions if session.split == "validation"]
    replies = served_exchanges(sessions, validation, model.transcript, serving)
    if len(replies) < MIN_EXCHANGES:
        raise UserError(
            tr(
                "found only {count} replies of yours for validation, needs at least {least}; give `doppel build` a "
                "larger archive",
                count=len(replies),
                least=MIN_EXCHANGES,
            )
        )
    return sample_evenly(replies, count)


def _print_chosen(reply: ReplySettings, folder: Path, chosen: SamplingTrial) -> None:
    setting = ", ".join(f"{name} {value:g}" for name, value in chosen.setting.items())
    print_status(tr("Version {version} now uses {setting}.", version=folder.name, setting=setting))
    if own := [name for name in SETTINGS if name in reply.model_fields_set]:
        print_status(
            tr(
                "config.yaml sets {names} and takes precedence; remove them there to use the new values.",
                names=", ".join(own),
            )
        )
