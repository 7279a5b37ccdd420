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
from doppel.reports.metrics import FIDELITY_FILE
from doppel.transcript import ME, Header, Turn
from tests.tiny import save_lora
from tests.training.runs import small_config
from training.dataset.files import SESSIONS_FILE, Session, write_sessions
from training.fidelity.evaluate import evaluate_version
from training.fidelity.gate import examine_and_use

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
    assert {"bits_per_byte", "choice", "two_sample_auc", "habits_distance", "relevance"} <= manifest.fidelity[
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
