"""What version 0.1.0 left on a user's disk is opened by this one, and means what it meant.

`v0.1/` holds it (README.md says what), `v0.1/expected.json` what 0.1.0 itself read in it. A change that breaks one of
these tests breaks somebody's archive: read the old form too, or migrate it.
"""

import json
import math
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import yaml
from sqlalchemy import Connection, select

from bot.store import Store, inbox, outbox, slots
from bot.store.schema import NewMessage
from bot.store.schema import outbox as outbox_table
from bot.store.schema import slots as slots_table
from doppel.adapters.checkpoint import open_adapter
from doppel.adapters.habits import read_habits
from doppel.adapters.versions import (
    current_version,
    list_versions,
    read_manifest,
    roll_back,
    use_version,
    version_folder,
)
from doppel.config import Config, load_config, parse_config
from doppel.config.renamed_keys import with_new_keys
from doppel.engine.local.engine import TransformersEngine
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.persona import GeneratedBubble, read_persona, speak
from doppel.reports.quiz import next_session, read_questions, read_results, save_result, score_answers
from doppel.transcript import Turn
from doppel.transcript.safe_tokens import SafeTokenizer
from tests.training.dataset.test_build import SilentProgress
from training.dataset.build import build_dataset
from training.dataset.files import check_archives, dataset_digest, read_sessions
from training.dataset.report.build_report import read_report
from training.fidelity.adapted_model import load_adapted_model
from training.fidelity.stored import read_stored_data
from training.lora.examples import make_examples, spread_sample
from training.people.contacts import read_contacts
from training.privacy.blocklist import Blocklist
from training.run import run
from training.run.completion_marker import mark_complete
from training.run.folders import run_folder
from training.run.metrics import read_metrics
from training.run.run import run_training
from training.run.setup import load_base, load_setup, with_replay
from training.tuning.search import SearchLimits, search_settings

FOLDER = Path(__file__).parent / "v0.1"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))

Open = Callable[..., Config]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """`opened("adapter", …)` unpacks archives into the home of 0.1.0's user, and gives its configuration."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)  # model.base is relative, and so to the current folder
    monkeypatch.setenv("DOPPEL_CACHE", str(tmp_path / "cache"))

    def open_(*names: str, **more: Any) -> Config:
        for name in ("base", "dataset", *names):
            with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
                archive.extractall(tmp_path / "cache" if name == "cache" else home, filter="data")
        content = yaml.safe_load((home / "config.yaml").read_text(encoding="utf-8"))
        return parse_config({**content, **more}, home / "config.yaml")

    return open_


def holds(actual: Any, expected: Any, at: str = "") -> None:
    """Asserts that everything expected is there, though there may be more keys than there were."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), at
        for key, value in expected.items():
            assert key in actual, f"{at}.{key}"
            holds(actual[key], value, f"{at}.{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), at
        for number, (one, value) in enumerate(zip(actual, expected, strict=True)):
            holds(one, value, f"{at}[{number}]")
    else:
        assert actual == expected, at


def as_written(config: Config) -> dict[str, Any]:
    """A configuration as a file would hold it: sections of platforms stand beside the others."""
    platforms = {name: section.model_dump(mode="json") for name, section in config.platforms.items()}
    return {**config.model_dump(mode="json", exclude={"platforms"}), **platforms}


# Configurations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED["configs"])
def test_a_configuration_says_what_it_said(name: str) -> None:
    path = FOLDER / "configs" / name
    holds(as_written(load_config(path)), with_new_keys(EXPECTED["configs"][name], path))


def test_the_configuration_of_a_home_says_what_it_said(opened: Open, tmp_path: Path) -> None:
    opened()
    path = tmp_path / "home" / "config.yaml"
    holds(as_written(load_config(path)), with_new_keys(EXPECTED["settings"], path))


# The data set --------------------------------------------------------------------------------------------


def test_a_data_set_is_read(opened: Open) -> None:
    config, expected = opened(), EXPECTED["dataset"]
    sessions = list(read_sessions(config.data_dir))
    assert dataset_digest(config.data_dir) == expected["digest"]
    assert len(sessions) == expected["sessions"]
    assert sum(len(turn.bubbles) for session in sessions for turn in session.turns) == expected["messages"]
    assert {name: sum(session.split == name for session in sessions) for name in expected["splits"]} == expected[
        "splits"
    ]
    holds(msgspec.to_builtins(sessions[0]), expected["first"])
    holds(msgspec.to_builtins(read_contacts(config.data_dir)), expected["contacts"])
    holds(msgspec.to_builtins(read_habits(config.data_dir)), expected["habits"])
    report = read_report(config.data_dir)
    assert (report.read, report.owner.kept) == (expected["read"], expected["own_messages"])
    assert report.dropped == expected["dropped"]
    assert report.scrubbed == expected["scrubbed"]


def test_a_data_set_need_not_be_built_again(opened: Open) -> None:
    config = opened()
    assert config.archive_digest == EXPECTED["dataset"]["archive_digest"]
    check_archives(config)


def test_who_is_forgotten_stays_forgotten(opened: Open) -> None:
    forgotten = Blocklist(opened().data_dir)
    assert forgotten.contains("telegram", "2004")
    assert forgotten.contains("telegram", "user2004", "chat")
    assert not forgotten.contains("telegram", "2002")


def test_a_new_build_keeps_what_lies_beside_the_old_one(opened: Open) -> None:
    config, expected = opened(), EXPECTED["dataset"]
    report = build_dataset(config, SilentProgress())
    texts = [text for session in read_sessions(config.data_dir) for turn in session.turns for text in turn.bubbles]
    assert sha256((config.data_dir / "scrub.key").read_bytes()).hexdigest() == expected["scrub_key"]
    assert set(expected["stand_ins"]) <= set(texts)  # by the same key the same ones
    assert {parent["text"] for parent in expected["parents"] if "text" in parent} <= set(texts)  # what was fetched
    assert report.dropped["forgotten"] == expected["forgotten"]["dropped"]
    assert not any(contact.account == "2004" for contact in read_contacts(config.data_dir))
    people = {contact.account: contact.pseudonym for contact in read_contacts(config.data_dir)}
    assert people == {contact["account"]: contact["pseudonym"] for contact in expected["contacts"]}


# Adapters ------------------------------------------------------------------------------------------------


def test_adapters_are_read(opened: Open) -> None:
    config, expected = opened("adapter"), EXPECTED["adapter"]
    assert list_versions(config.adapters_dir) == list(expected["versions"])
    in_use = current_version(config.adapters_dir)
    assert in_use is not None
    assert in_use.name == expected["current"]
    for version, facts in expected["versions"].items():
        folder = config.adapters_dir / version
        holds(msgspec.to_builtins(read_manifest(folder)), facts["manifest"], version)
        persona = read_persona(folder)
        holds(msgspec.to_builtins(persona.habits), facts["habits"], version)
        holds(msgspec.to_builtins(persona.sampling(config.reply)), facts["sampling"], version)
        assert (persona.guard is not None) == facts["guard"]
        assert len(list(read_metrics(folder / "metrics.jsonl"))) == facts["metrics"]
    guard = read_persona(config.adapters_dir / "0001").guard
    assert guard is not None
    assert all(guard.objects(text) for text in expected["guarded"])
    assert not guard.objects("nobody ever wrote these words one after the other, as far as i know")


def test_versions_can_be_chosen(opened: Open) -> None:
    config = opened("adapter")
    assert roll_back(config.adapters_dir).name == "0001"
    assert use_version(config.adapters_dir, "0004").name == "0004"
    assert version_folder(config.adapters_dir).name == "0004"
    version_folder(config.adapters_dir).rename(config.adapters_dir / ".amended-0004")  # a crash in the wrong moment
    assert version_folder(config.adapters_dir).is_dir()


_SCORED_TOKENS = 8_000
"""On which 0.1.0 scored an adapter after a training with a time limit."""


@pytest.mark.parametrize(("version", "base"), [("0001", "tiny-base"), ("0002", "tiny-base"), ("0004", "tiny-chat")])
def test_an_adapter_computes_what_it_did(opened: Open, version: str, base: str) -> None:
    model = {**EXPECTED["settings"]["model"], "base": base}
    config = opened("adapter", model=model, transcript="chat" if base == "tiny-chat" else "base")
    assert identify(Path(base), base).digest == EXPECTED["base"]["digest"]
    setup = load_setup(config, config.training.minutes)
    length = EXPECTED["adapter"]["versions"][version]["manifest"]["training"]["max_length"]
    items = spread_sample(make_examples(setup.sessions["test"], setup.transcript, length), _SCORED_TOKENS)
    scores = load_adapted_model(config.model, config.adapters_dir / version).example_losses(items)
    after = EXPECTED["adapter"]["versions"][version]["manifest"]["fidelity"]["after"]
    size = sum(score.text_bytes for score in scores)
    assert size == after["text_bytes"]
    assert sum(score.text for score in scores) / math.log(2) / size == pytest.approx(after["bits_per_byte"], rel=1e-3)


async def test_adapters_speak(opened: Open) -> None:
    config = opened("adapter")
    base = Path("tiny-chat")
    engine = TransformersEngine(load_model(base, torch.float32), load_tokenizer(base), identify(base, "tiny-chat"))
    try:
        for version, facts in EXPECTED["adapter"]["versions"].items():
            persona = read_persona(config.adapters_dir / version)
            name = await engine.load_adapter(persona.folder)
            assert engine.transcript_of(name).format == facts["manifest"]["transcript"]
            header = persona.header(kind="dm", now=datetime(2026, 3, 1, tzinfo=UTC), zone=config.zone)
            sampling = msgspec.structs.replace(persona.sampling(config.reply), seed=1, max_tokens=24)
            events = [event async for event in speak(engine, name, header, [Turn("Tom", ("hello",))], sampling)]
            assert any(isinstance(event, GeneratedBubble) for event in events), version
    finally:
        engine.close()


def test_an_examination_and_its_quizzes_are_read(opened: Open) -> None:
    config, expected = opened("adapter"), EXPECTED["adapter"]
    folder = config.adapters_dir / "0001"
    assert msgspec.to_builtins(read_results(folder)) == expected["fidelity"]["quizzes"]
    assert len(read_stored_data(folder).replies) == expected["fidelity"]["replies"]
    offer = read_questions(config.data_dir)
    assert offer is not None
    assert offer.version == expected["offer"]["version"]
    assert [session.seed for session in offer.sessions] == expected["offer"]["seeds"]
    holds(msgspec.to_builtins(offer.sessions[0].questions[0]), expected["offer"]["first"])
    sitting = next_session(offer, read_results(folder))
    assert sitting.seed not in {result.seed for result in read_results(folder)}
    save_result(folder, score_answers(sitting, [True, True], "Ines"))
    assert [result.name for result in read_results(folder)] == ["Lena", "汤姆", "Ines"]
    written = json.loads((folder / "fidelity.json").read_bytes())
    assert sorted(written) == expected["fidelity"]["keys"]
    before = {name: figure for name, figure in expected["fidelity"]["figures"].items() if name != "quiz"}
    assert {name: written["figures"][name] for name in before} == before
    holds(read_manifest(folder).training, expected["versions"]["0001"]["manifest"]["training"])


# Trainings -----------------------------------------------------------------------------------------------


@pytest.fixture
def without_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the longest in a training, and stores nothing."""
    monkeypatch.setattr(run, "SampleReplies", lambda *_: list)


@pytest.mark.usefixtures("without_samples")
def test_an_interrupted_training_goes_on(opened: Open) -> None:
    config, expected = opened("training"), EXPECTED["training"]
    assert f"checkpoint-{expected['step']}" in {path.name for path in run_folder(config.data_dir).iterdir()}
    folder = Path(run_training(config)["adapter"])
    assert not run_folder(config.data_dir).exists()
    manifest = read_manifest(folder)
    # with the time it began: it is the same run; the warm-up is a share of the run now, and no longer in the plan
    holds(manifest.training, {key: value for key, value in expected["plan"].items() if key != "warmup_steps"})
    holds(manifest.fidelity["before"], expected["before"])
    metrics = list(read_metrics(folder / "metrics.jsonl"))
    holds(msgspec.to_builtins(metrics[: len(expected["metrics"])]), expected["metrics"])
    assert [metric.step for metric in metrics if metric.loss is not None] == list(
        range(1, expected["plan"]["steps"] + 1)
    )
    assert metrics[-1].seconds > expected["metrics"][-1]["seconds"]


@pytest.mark.usefixtures("without_samples")
def test_the_time_that_an_interrupted_training_used_counts(opened: Open) -> None:
    config, expected = opened("training"), EXPECTED["training"]
    folder = run_folder(config.data_dir) / f"checkpoint-{expected['step']}"
    path = folder / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    (used,) = [
        part["attributes"] for part in state["stateful_callbacks"].values() if "seconds_before" in part["attributes"]
    ]
    used["seconds_before"] = 60.0 * config.training.minutes + 1 if config.training.minutes else 0.0
    path.write_text(json.dumps(state), encoding="utf-8")
    mark_complete(folder)
    published_as = Path(run_training(config)["adapter"])
    assert max(row.step for row in read_metrics(published_as / "metrics.jsonl")) == expected["step"]


def test_a_checkpoint_of_an_interrupted_training_speaks(opened: Open) -> None:
    config, expected = opened("training"), EXPECTED["training"]
    with open_adapter(run_folder(config.data_dir) / f"checkpoint-{expected['step']}", config) as opened_adapter:
        persona = read_persona(opened_adapter.folder, opened_adapter.version)
        assert persona.manifest.persona == "mara"
        assert persona.manifest.version == f"checkpoint-{expected['step']}"
        holds(persona.manifest.training, expected["plan"])
        holds(persona.manifest.fidelity["before"], expected["before"])
        holds(msgspec.to_builtins(persona.habits), EXPECTED["dataset"]["habits"])


@pytest.mark.usefixtures("without_samples")
def test_an_interrupted_training_on_from_an_adapter_goes_on(opened: Open) -> None:
    config, expected = opened("adapter", "training_from"), EXPECTED["training_from"]
    plan = run_folder(config.data_dir) / "plan.json"  # it names the adapter by where it lay
    plan.write_text(plan.read_text(encoding="utf-8").replace(EXPECTED["home"], str(config.root)), encoding="utf-8")
    result = run_training(config)
    manifest = read_manifest(Path(result["adapter"]))
    assert manifest.training["began_at"] == expected["began_at"]
    holds(manifest.training["parent"], {name: expected["parent"][name] for name in ("name", "weights")})
    assert result["bits_per_byte_start"] == expected["parent_score"]["bits_per_byte"]


def test_a_search_goes_on_where_it_was(opened: Open) -> None:
    config, expected = opened("tuning"), EXPECTED["tuning"]
    limits = expected["limits"]
    tuned = search_settings(config, SearchLimits(**limits))  # as many trials as there are
    holds(msgspec.to_builtins(tuned.trials), expected["trials"])
    holds(msgspec.to_builtins(tuned.best), expected["best"])
    assert tuned.base_bits == expected["base"]
    assert tuned.trial_tokens == expected["trial_tokens"]
    again = search_settings(config, SearchLimits(**{**limits, "trials": limits["trials"] + 1})).trials[-1]
    killed = expected["killed"]  # as the search calls them: powers of two by their exponents
    assert again.values == {
        "learning_rate": float(f"{killed['learning_rate']:.2g}"),
        "rank": 2 ** killed["rank"],
        "sessions_per_step": 2 ** killed["sessions_per_step"],
    }


def test_what_the_base_wrote_for_replay_is_used_again(opened: Open, tmp_path: Path) -> None:
    training = {**EXPECTED["settings"]["training"], "mix": [{"path": "mix.json", "share": 0.1}], "replay": 0.05}
    config = opened("cache", training=training)
    files = sorted((tmp_path / "cache" / "replay").rglob("*.json"))
    markup = SafeTokenizer(load_tokenizer(Path("tiny-base"))).markup
    cached = [text for path in files for text in json.loads(path.read_bytes()) if markup.isdisjoint(text[1:-1])]
    setup = load_setup(config, config.training.minutes)
    (source,) = setup.sources
    assert source.digest == EXPECTED["adapter"]["versions"]["0002"]["manifest"]["dataset"]["mix"][0]["digest"]
    with_more = with_replay(setup, load_base(setup))
    replayed = [example.ids for example in with_more.train if example not in setup.train]
    assert len(cached) > 3
    assert all(text in replayed for text in cached[:3])


# The daemon's database -----------------------------------------------------------------------------------


PERSONA = "ann"
"""The chats of a database from before chats belonged to a persona become those of the configured one."""


@pytest.fixture
def store(opened: Open) -> Iterator[Store]:
    store = Store(opened("database").store_url, PERSONA)
    yield store
    store.close()


def at(text: str) -> datetime:
    """A time as the database has it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bubbles(connection: Connection) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(select(outbox_table).order_by(outbox_table.c.id))]


async def test_chats_and_what_was_said_in_them(store: Store) -> None:
    expected = EXPECTED["database"]
    seen = {"sending", "sent", "unknown"}
    for chat in expected["chats"]:
        found = await store.run(
            inbox.get_or_create_chat, PERSONA, chat["platform"], chat["chat"], now=datetime.now(UTC)
        )
        assert (found.id, found.kind) == (chat["id"], chat["kind"])
        entries = await store.run(inbox.visible_messages, PERSONA, chat["platform"], chat["chat"], 100)
        theirs = [(row["text"], at(row["received_at"])) for row in expected["inbox"] if row["chat_id"] == chat["id"]]
        assert [(entry.text, entry.at) for entry in entries if entry.sender is not None] == theirs
        mine = [
            (row["text"], row["kind"], row["adapter"])
            for row in expected["outbox"]
            if row["chat_id"] == chat["id"] and row["state"] in seen
        ]
        assert [(entry.text, entry.kind, entry.adapter) for entry in entries if entry.sender is None] == mine
        waiting = await store.run(inbox.pending_messages, chat["id"], 100)
        new = [row for row in expected["inbox"] if row["chat_id"] == chat["id"] and row["state"] == "new"]
        assert [(message.id, message.text, message.attempts) for message in waiting] == [
            (row["id"], row["text"], row["attempts"]) for row in new
        ]


async def test_a_message_that_was_received_is_not_received_again(store: Store) -> None:
    one = EXPECTED["database"]["inbox"][0]
    known = NewMessage(
        platform=one["platform"],
        event_id=one["event_id"],
        chat="5001",
        kind="dm",
        sender=one["sender"],
        text=one["text"],
        message_id=one["message_id"],
        mentions_bot=True,
        sent_at=at(one["sent_at"]),
    )
    assert await store.run(inbox.receive, PERSONA, known, datetime.now(UTC)) is None
    fresh = msgspec.structs.replace(known, event_id="fresh", text="are you awake?")
    chat = await store.run(inbox.receive, PERSONA, fresh, datetime.now(UTC))
    assert chat is not None
    assert chat.id == one["chat_id"]


async def test_bubbles_in_every_state(store: Store) -> None:
    found = await store.run(bubbles)
    times = ("created_at", "changed_at", "not_before")
    rows = EXPECTED["database"]["outbox"]
    holds(found, [{**row, **{name: row[name] and at(row[name]) for name in times}} for row in rows])
    assert {row["state"] for row in found} == {"pending", "sending", "sent", "failed", "unknown"}
    group = (await store.run(outbox.pending_bubbles, 2))[0]
    assert (group.text, group.attempts, group.not_before) == ("or without", 1, datetime(2026, 3, 1, 13, 30, tzinfo=UTC))
    assert await store.run(outbox.answered_message_id, group) == "m11"


async def test_what_was_being_sent_when_the_daemon_was_killed(store: Store) -> None:
    when = max(at(row["changed_at"]) for row in EXPECTED["database"]["outbox"])
    unsure = await store.run(outbox.recover_interrupted_sends, PERSONA, {"discord"}, when + timedelta(seconds=30))
    assert [(delivery.platform, delivery.chat, delivery.is_resent) for delivery in unsure] == [
        ("discord", "123456789012345678", True),
        ("telegram", "5001", False),
    ]
    states = {bubble["text"]: bubble["state"] for bubble in await store.run(bubbles)}
    assert (states["早，第12次了"], states["it sank"], states["沉了"]) == ("pending", "unknown", "failed")
    unfinished = await store.run(inbox.unfinished_chats, PERSONA)
    assert [chat.id for chat in unfinished] == [1, 2, 3]


async def test_schedules_go_on(store: Store) -> None:
    expected = EXPECTED["database"]
    found = await store.run(
        lambda connection: [
            (row.schedule, row.due, row.state, row.reason)
            for row in connection.execute(select(slots_table).order_by(slots_table.c.id))
        ]
    )
    assert found == [(slot["schedule"], at(slot["due"]), slot["state"], slot["reason"]) for slot in expected["slots"]]
    for slot in expected["slots"]:
        assert not await store.run(slots.unclaimed, PERSONA, slot["schedule"], [at(slot["due"])])
    rhythms = {"morning": "30 8 * * 1-5", "now-and-then": "every 6h"}
    for row in expected["cursors"]:
        name = row["name"].removeprefix("schedule:")
        since = await store.run(slots.trigger_since, PERSONA, name, rhythms[name], datetime.now(UTC))
        assert since == at(row["changed_at"])
