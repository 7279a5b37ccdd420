"""A new version is examined before it is used; one that fails is not used, and the reason is shown."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from doppel.adapters.habits import Habits, write_habits
from doppel.adapters.versions import Manifest, current_version, list_versions, publishing, read_manifest
from doppel.cli.app import app
from doppel.config import Config
from doppel.models.base import identify
from doppel.reports.metrics import FIDELITY_FILE, Interval, Metric
from doppel.transcript import ME, Header, Turn
from tests.tiny import save_lora
from tests.training.fidelity.cases import make_exchange
from tests.training.runs import small_config
from training.dataset.files import SESSIONS_FILE, Session, write_sessions
from training.fidelity.evaluate import evaluate_version
from training.fidelity.gate import examine_and_use
from training.fidelity.generate import EvaluationReply
from training.fidelity.goals import check_gate
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.measures.memorisation import memorisation_metrics

WORDS = ("haha", "no idea", "ask tom", "later then", "brb", "sounds fine to me", "what a day that was", "see you soon")


def session(number: int, split: str) -> Session:
    """Six turns, three of them the owner's."""
    turns = tuple(
        Turn(speaker, (f"{WORDS[(number + place) % len(WORDS)]} {WORDS[(number * place + 3) % len(WORDS)]}",))
        for place, speaker in enumerate(("Ramito", ME) * 3)
    )
    return Session(
        id=f"{number:04}",
        split=split,  # type: ignore[arg-type]
        chat="Ramito",
        started_at=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number),
        header=Header(kind="dm", platform="telegram"),
        turns=turns,
    )


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    config = small_config(tmp_path, tiny_base, history=6)
    config.data_dir.mkdir(parents=True)
    splits = ["train"] * 40 + ["validation"] * 5 + ["test"] * 30
    write_sessions(config.data_dir / SESSIONS_FILE, [session(number, split) for number, split in enumerate(splits)])
    write_habits(config.data_dir, Habits())
    return config


def publish_random(config: Config, *, seed: int) -> str:
    """Publishes a random adapter, which is worse than its base; only that of seed 0 is in use."""
    base = Path(config.model.base)
    with publishing(
        config.adapters_dir, Manifest(persona=config.persona.name, base=identify(base, str(base))), in_use=seed == 0
    ) as staging:
        save_lora(base, staging, seed=seed)
        write_habits(staging, Habits())
    return list_versions(config.adapters_dir)[-1]


def test_a_version_that_fails_is_not_used_unless_forced(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    before = publish_random(config, seed=0)
    version = publish_random(config, seed=1)
    result = examine_and_use(config, version, force=False)
    assert result["in_use"] is False
    assert any(not check["ok"] for check in result["gate"])
    assert f"Version {version} fails: " in capsys.readouterr().err
    used = current_version(config.adapters_dir)
    assert used is not None
    assert used.name == before
    assert examine_and_use(config, version, force=True)["in_use"] is True
    used = current_version(config.adapters_dir)
    assert used is not None
    assert used.name == version


def test_the_result_is_stored_in_the_version(config: Config) -> None:
    version = publish_random(config, seed=0)
    outcome = evaluate_version(config, version, quick=True)
    manifest = read_manifest(outcome.folder)
    content = json.loads((outcome.folder / FIDELITY_FILE).read_text(encoding="utf-8"))
    assert content["figures"].keys() == outcome.to_json()["figures"].keys()
    assert {"bits_per_byte", "choice", "two_sample_auc", "habits_distance", "silent"} <= manifest.fidelity[
        "figures"
    ].keys()
    assert all({"name", "value", "goal", "ok"} == check.keys() for check in content["checks"])
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<!-- added -->") == 1
    evaluate_version(config, version, quick=True)
    assert (outcome.folder / "report.html").read_text(encoding="utf-8").count("<!-- added -->") == 1


def test_with_too_few_replies_the_version_is_used_unexamined(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    version = publish_random(config, seed=0)
    write_sessions(config.data_dir / SESSIONS_FILE, [session(0, "train"), session(1, "test")])
    assert examine_and_use(config, version, force=False) == {"gate": [], "in_use": True}
    assert "only 3 of your replies are held out" in capsys.readouterr().err


def test_the_command_compares_two_versions(config: Config, tmp_path: Path) -> None:
    import yaml

    content = {"model": {"base": config.model.base, "dtype": "float32"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    names = [publish_random(config, seed=seed) for seed in (0, 1)]
    result = CliRunner().invoke(
        app(), ["evaluate", *names, "--quick", "--json", "--config", str(tmp_path / "config.yaml")]
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [version["version"] for version in printed["versions"]] == names
    assert "bits_per_byte" in printed["better"]


QUICK_REPLIES = 28
"""Replies in a quick examination, with which the gate decides."""


def replies(texts: list[str]) -> list[EvaluationReply]:
    return [EvaluationReply(make_exchange(number), (text,) if text else ()) for number, text in enumerate(texts)]


def gate(texts: list[str], change: Interval = Interval(-0.03, -0.05, -0.01)) -> dict[str, bool]:  # noqa: B008
    """The gate's results for a version with these replies, whose owner writes something new each time."""
    learned = ["I told you on Monday that the boat leaves at seven", *[f"old story {number}" for number in range(50)]]
    from_contacts = ["we are all going to the lake house on Sunday with Peter"]
    actual = replies([f"something new {number}" for number in range(400)])
    written = replies(texts)
    metrics = [
        Metric(name="bits_change", estimate=change, lower_is_better=True),
        Metric(name="specificity", estimate=Interval(0.01, -0.02, 0.04)),
        *memorisation_metrics(written, actual, learned, from_contacts),
        *(metric for metric in habit_metrics(written, actual, actual, actual) if metric.name == "silent"),
    ]
    return {result.name: result.ok for result in check_gate(metrics)}


def test_the_gate_lets_an_honest_version_pass() -> None:
    assert all(gate([f"fresh words {number}" for number in range(QUICK_REPLIES)]).values())


@pytest.mark.parametrize(
    ("bad", "goal"),
    [
        ("I told you on Monday that the boat leaves at seven", "recited beyond the owner's own repeating"),
        (
            "we are all going to the lake house on Sunday with Peter",
            "recited from contacts beyond the owner's own repeating",
        ),
        (
            "I told you on Monday that a boat leaves at seven",
            "recited beyond the owner's own repeating",
        ),
        ("what now?", "repeated what it answers more than the owner does"),
        ("haha no idea", "gave its commonest reply more than the owner does"),
        ("", "silent"),
    ],
)
def test_the_gate_closes_on_a_version_that_recites_parrots_says_one_thing_or_is_silent(bad: str, goal: str) -> None:
    texts = [bad if number % 3 == 0 else f"fresh words {number}" for number in range(QUICK_REPLIES)]
    also_stock = {"gave its commonest reply more than the owner does"} if bad else set()  # the same one ten times
    assert {name for name, ok in gate(texts).items() if not ok} == {goal, *also_stock}


def test_three_recited_replies_of_a_quick_examination_are_too_many() -> None:
    recited = "I told you on Monday that the boat leaves at seven"
    texts = [recited if number in (3, 12, 20) else f"fresh words {number}" for number in range(QUICK_REPLIES)]
    assert not gate(texts)["recited beyond the owner's own repeating"]


@pytest.mark.parametrize("change", [Interval(-0.01, -0.04, 0.02), Interval(0.02, 0.01, 0.03), Interval.unknown()])
def test_the_gate_closes_unless_a_version_is_shown_to_be_better_than_the_base(change: Interval) -> None:
    texts = [f"fresh words {number}" for number in range(QUICK_REPLIES)]
    assert not gate(texts, change)["bits per byte against the base"]
