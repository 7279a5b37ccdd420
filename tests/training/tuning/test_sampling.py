"""Tuning of the sampling: the settings that write most like the owner, at equal relevance, are stored and used."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from doppel import config as configuration
from doppel.adapters.versions import read_manifest
from doppel.cli.app import app
from doppel.config import Config
from doppel.engine import Sampling
from doppel.errors import UserError
from doppel.persona import read_persona
from doppel.reports.metrics import Interval
from tests.training.fidelity.cases import casual, formal
from tests.training.fidelity.test_gate import config as config  # noqa: PLC0414 a fixture
from tests.training.fidelity.test_gate import publish_random, session
from training.dataset.files import SESSIONS_FILE, write_sessions
from training.fidelity.examine import ExaminationSize
from training.fidelity.generate import EvaluationReply
from training.fidelity.served import Exchange
from training.tuning import sampling as tuning
from training.tuning.sampling import SamplingTrial, candidate_settings, choose, run_trial, search, tune_sampling


def trial(
    auc: float, distance: float = 0.2, relevance: float = 0.7, half: float = 0.05, top_p: float = 1.0
) -> SamplingTrial:
    return SamplingTrial(0.9, top_p, 0.0, auc, distance, Interval(relevance, relevance - half, relevance + half))


class TestChoice:
    def test_the_score_is_made_of_auc_and_habits(self) -> None:
        assert trial(0.6, 0.3).score == pytest.approx(0.5)
        assert trial(0.4, 0.3).score == pytest.approx(0.3)  # below chance is chance
        assert choose([trial(0.7, 0.1), trial(0.6, 0.2), trial(0.55, 0.6)]) == trial(0.6, 0.2)

    def test_settings_that_are_clearly_less_relevant_are_not_chosen(self) -> None:
        off_topic = trial(0.5, 0.0, relevance=0.62)
        assert choose([trial(0.7), off_topic, trial(0.65)]) == trial(0.65)
        assert choose([trial(0.7, half=0.1), off_topic]) == off_topic
        # One lucky relevance does not exclude all others, and the current settings are never excluded.
        assert choose([trial(0.6), trial(0.9, relevance=0.99, half=0.001)]) == trial(0.6)

    def test_the_current_settings_stay_unless_others_are_better(self) -> None:
        assert choose([trial(0.6, top_p=0.9), trial(0.6), trial(0.7)]).top_p == 0.9

    def test_settings_that_were_better_by_luck_are_found_out_in_the_second_run(self) -> None:
        settings = [Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.1)]

        def search_with(second_auc: float) -> tuple[int, SamplingTrial]:
            aucs = {(0.9, 0): 0.7, (0.7, 0): 0.8, (1.1, 0): 0.6, (0.9, 1): 0.7, (1.1, 1): second_auc}
            trials, again, chosen = search(settings, lambda sampling, seed: trial(aucs[sampling.temperature, seed]))
            assert len(trials) == 3
            assert len(again) == 2
            return trials.index(chosen), chosen

        assert search_with(second_auc=0.72)[0] == 0
        assert search_with(second_auc=0.65)[0] == 2
        trials, again, chosen = search(settings, lambda sampling, _: trial(0.5 if sampling == settings[0] else 0.9))
        assert (again, chosen) == ([], trials[0])

    def test_settings_that_could_not_be_measured_are_last(self) -> None:
        unmeasured = SamplingTrial(1.0, 1.0, 0.0, math.nan, math.nan, Interval(math.nan, math.nan, math.nan))
        assert choose([unmeasured, trial(0.9)]) == trial(0.9)
        assert choose([unmeasured]) == unmeasured
        assert unmeasured.score == math.inf


def test_the_current_settings_are_tried_first_and_none_twice() -> None:
    for current in (Sampling(), Sampling(temperature=0.33, max_tokens=20)):
        candidates = candidate_settings(current)
        assert candidates[0] == current
        assert len({(setting.temperature, setting.top_p, setting.min_p) for setting in candidates}) == len(candidates)
        assert {setting.max_tokens for setting in candidates} == {current.max_tokens}
    assert len(candidate_settings(Sampling())) == 9
    assert all(
        configuration.ReplySettings(**{name: getattr(setting, name) for name in tuning.SETTINGS})
        for setting in candidate_settings(Sampling())
    )


def test_the_settings_that_write_like_the_owner_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter writes like the owner at temperature 0.7 only."""

    def generate_replies(
        _: object, exchanges: Sequence[Exchange], sampling: Sampling, advance: object, seed: int
    ) -> list[EvaluationReply]:
        return casual(len(exchanges), 1) if sampling.temperature == 0.7 else formal(len(exchanges), 2)

    monkeypatch.setattr(tuning, "_FILTERS", tuning._FILTERS[:1])
    monkeypatch.setattr(tuning, "generate_replies", generate_replies)
    monkeypatch.setattr(tuning, "actual_replies", lambda exchanges: casual(len(exchanges), 3))
    monkeypatch.setattr(tuning, "relevance", lambda adapted, replies: [Interval(0.7, 0.6, 0.8)])
    exchanges = [reply.exchange for reply in casual(60)]
    trials = [run_trial(None, exchanges, setting) for setting in candidate_settings(Sampling())]  # type: ignore[arg-type]
    chosen = choose(trials)
    assert chosen.temperature == 0.7
    assert chosen.auc < 0.65
    assert chosen.score < 0.4 * max(trial.score for trial in trials)


def test_too_few_validation_replies_are_refused(config: Config) -> None:
    version = publish_random(config, seed=0)
    with pytest.raises(UserError, match="found only 15 replies of yours for validation, needs at least"):
        tune_sampling(config, version, quick=True)
    assert read_manifest(config.adapters_dir / version).sampling == {}


def test_the_command_stores_the_settings_where_the_daemon_reads_them(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_TEMPERATURES", (1.1,))
    monkeypatch.setattr(tuning, "_QUICK_REPLIES", 12)
    monkeypatch.setattr(tuning, "_FILTERS", tuning._FILTERS[:2])
    monkeypatch.setattr("training.fidelity.evaluate.QUICK", ExaminationSize(200, 4, 8, 4, best_of=True))
    splits = ["train"] * 40 + ["validation"] * 12 + ["test"] * 12
    write_sessions(config.data_dir / SESSIONS_FILE, [session(number, split) for number, split in enumerate(splits)])
    folder = config.adapters_dir / publish_random(config, seed=0)
    path = tmp_path / "config.yaml"
    content = {"model": {"base": config.model.base, "dtype": "float32"}, "reply": {"max_tokens": 16, "top_p": 0.95}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = CliRunner().invoke(
        app(), ["evaluate", folder.name, "--tune-sampling", "--quick", "--json", "--config", str(path)]
    )
    assert result.exit_code == 0, result.output
    assert "config.yaml sets top_p and takes precedence" in result.stderr
    printed = json.loads(result.stdout)
    assert "bits_per_byte" in printed["figures"]
    tuned = printed["tuned"][0]
    assert len(tuned["trials"]) == 3
    manifest = read_manifest(folder)
    assert manifest.sampling == tuned["sampling"]
    used = read_persona(folder).sampling(configuration.ReplySettings())
    assert {name: getattr(used, name) for name in tuning.SETTINGS} == tuned["sampling"]
    assert read_persona(folder).sampling(configuration.ReplySettings(temperature=0.3)).temperature == 0.3
