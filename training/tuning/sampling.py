"""Which temperature, top_p and min_p write most like the owner: a small grid, tried on the validation conversations.

The examination's own conversations stay unread, so that its figures are not of what was chosen by them. Every
setting answers the same situations with the same random numbers, so that their differences are the settings'. The best
of many looks better than it is, so it is tried once more, with other numbers, against what is in force.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from doppel.adapters.update import update_version
from doppel.adapters.versions import version_folder
from doppel.config import Config
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
from training.fidelity.texts import MIN_EXCHANGES, Exchange, owner_exchanges, sample_evenly

SETTINGS = ("temperature", "top_p", "min_p")
_TEMPERATURES = (0.7, 0.9, 1.1)
_FILTERS = ((0.9, 0.0), (0.95, 0.02), (1.0, 0.05))
"""Pairs of top_p and min_p, from what looks at mass alone to what looks at the likeliest alone."""
_REPLIES, _QUICK_REPLIES = 96, 40

Advance = Callable[[int], None]


class Trial(msgspec.Struct, frozen=True):
    """One setting and how it wrote.

    Attributes:
        temperature, top_p, min_p: the setting.
        auc: of a classifier that tells its replies from the owner's; 0.5 is chance.
        distance: of its habits of writing from the owner's.
        relevance: how often a reply fits what was said rather than something else.
    """

    temperature: float
    top_p: float
    min_p: float
    auc: float
    distance: float
    relevance: Interval

    @property
    def score(self) -> float:
        """How far from the owner, 0 not at all: both measures, each about 1 for somebody else. What failed is last."""
        found = 2 * max(0.0, self.auc - 0.5) + self.distance
        return found if math.isfinite(found) else math.inf

    @property
    def setting(self) -> dict[str, float]:
        """As the manifest keeps it."""
        return {name: getattr(self, name) for name in SETTINGS}


class Tuned(msgspec.Struct, frozen=True):
    """The outcome for one version.

    Attributes:
        version: its number.
        trials: of every setting; the first is what was in force before.
        again: what was in force and the best of the others, with other random numbers; none where nothing was better.
        chosen: one of the trials.
    """

    version: str
    trials: list[Trial]
    again: list[Trial]
    chosen: Trial

    def result(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "version": self.version,
            "trials": msgspec.to_builtins(self.trials),
            "again": msgspec.to_builtins(self.again),
            "sampling": self.chosen.setting,
        }


def tune_sampling(config: Config, version: str | None, *, quick: bool) -> Tuned:
    """Finds a published version's best sampling and writes it into its manifest.

    Args:
        config: says which persona, and how it speaks so far.
        version: its number; None is the one in use.
        quick: fewer replies.

    Raises:
        UserError: no such version, or too little for validation. AdapterRefused: it is damaged, or of another base.
    """
    folder = version_folder(config.adapters_dir, None if version is None else version.zfill(4))
    sampling = read_persona(folder).sampling(config.reply)
    subject = load_adapted_model(config.model, folder)
    asked = _asked(read_sessions(config.data_dir), subject, _QUICK_REPLIES if quick else _REPLIES)
    tried = settings(sampling)
    most = (len(tried) + 2) * len(asked)
    with progress() as bar:
        task = bar.add_task(tr("Trying ways to choose words"), total=most, rate="")
        trials, again, chosen = search(
            tried, lambda one, seed: try_out(subject, asked, one, partial(bar.advance, task), seed)
        )
        bar.update(task, completed=most)
    update_version(
        folder, lambda _, manifest: msgspec.structs.replace(manifest, sampling={**manifest.sampling, **chosen.setting})
    )
    _tell(config, folder, chosen)
    return Tuned(folder.name, trials, again, chosen)


def settings(current: Sampling) -> list[Sampling]:
    """What is tried: the setting in force, then the grid."""
    grid = [
        msgspec.structs.replace(current, temperature=temperature, top_p=top_p, min_p=min_p)
        for temperature in _TEMPERATURES
        for top_p, min_p in _FILTERS
    ]
    return [current, *(one for one in grid if one != current)]


def search(
    tried: Sequence[Sampling], trial: Callable[[Sampling, int], Trial]
) -> tuple[list[Trial], list[Trial], Trial]:
    """Tries every setting, and the best of them again; returns the trials, the second ones, and what is chosen.

    Args:
        tried: the settings, the first of which is in force.
        trial: of a setting with the random numbers of a seed.
    """
    trials = [trial(one, 0) for one in tried]
    best = trials.index(choose(trials))
    again = [trial(tried[number], 1) for number in (0, best)] if best else []
    return trials, again, trials[best] if again and choose(again) is again[1] else trials[0]


def try_out(
    subject: AdaptedModel,
    asked: Sequence[Exchange],
    sampling: Sampling,
    advance: Advance = lambda _: None,
    seed: int = 0,
) -> Trial:
    """Writes a reply to every situation and measures them."""
    written, actual = generate_replies(subject, asked, sampling, advance, seed=seed), actual_replies(asked)
    said = [one for one in written if one.bubbles]
    distance = by_name(habit_metrics(written, [], actual, []))["habits_distance"].estimate.value if said else math.nan
    auc = classifier_auc(written, actual).value if said else math.nan
    return Trial(sampling.temperature, sampling.top_p, sampling.min_p, auc, distance, relevance(subject, (written,))[0])


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial nearest to the owner among those that are as relevant as the first, as far as can be told.

    Of equals the first: what is in force stays unless something is better. One whose relevance is below the first
    one's interval is less relevant.
    """
    least = trials[0].relevance.low
    relevant = [one for one in trials[1:] if math.isnan(least) or one.relevance.value >= least]
    return min([trials[0], *relevant], key=lambda one: one.score)


def _asked(sessions: Iterable[Session], subject: AdaptedModel, count: int) -> list[Exchange]:
    found = [
        situation
        for session in sessions
        if session.split == "validation"
        for situation in owner_exchanges(session, subject.transcript)
    ]
    if len(found) < MIN_EXCHANGES:
        raise UserError(
            tr(
                "only {count} replies of yours are kept for validation, at least {least} are needed to tune on; "
                "give `doppel build` a larger archive",
                count=len(found),
                least=MIN_EXCHANGES,
            )
        )
    return sample_evenly(found, count)


def _tell(config: Config, folder: Path, chosen: Trial) -> None:
    setting = ", ".join(f"{name} {value:g}" for name, value in chosen.setting.items())
    print_status(tr("Version {version} now speaks with {setting}.", version=folder.name, setting=setting))
    if own := [name for name in SETTINGS if name in config.reply.model_fields_set]:
        print_status(
            tr("config.yaml says otherwise of {names}, and holds; leave them out there.", names=", ".join(own))
        )
