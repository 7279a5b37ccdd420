"""Made the stored formats beside it, with version 0.1.0's code; kept for the record.

Nobody runs it again: the files are what a user of 0.1.0 has on the disk, and later versions are tested to open them.
It ran in /tmp/mara/doppel, so that the absolute paths that are stored are nobody's, as
`PYTHONPATH=<checkout of 0.1.0> python make.py <folder for the archives>`. Everybody in it is made up.
"""

# isort: skip_file

import asyncio
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml
from doppel.adapter import current, published, read_manifest, rollback, use, versions
from doppel.adapter_import import import_adapter
from doppel.quiz import next_sitting, read_offer, read_quizzes, record, score, write_offer
from doppel.store import Store, inbox, outbox, slots
from doppel.store.schema import Received
from pydantic import BaseModel
from tests.training.test_build import Silent
from tests.training.test_fetched_parents import FakeX
from training.build import build_dataset
from training.build_page import measure_for, write_page
from training.fidelity.tuning import tune_sampling
from training.fit import Interrupted, fit
from training.forgetting import forget
from training.metrics import read_metrics
from training.parents import fetch_parents
from training.prepare import work_folder
from training.trainer import PersonaTrainer
from training.tune import Limits, tune, tuning_folder

import doppel
from doppel.config import Config, load_config, parse_config
from doppel.diagnosis import data_made_from
from doppel.persona import read_persona
from tests.doppel.chat_templates import GEMMA
from tests.tiny import build_base, save_lora
from tests.training.exports import (
    telegram_account,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
    write_json,
    write_zip,
)
from training import tune as tuning
from training.dataset import dataset_digest, read_sessions
from training.fidelity.evaluate import evaluate_version
from training.fidelity.quiz import gather as gather_quiz
from training.people import read_contacts

HOME = Path("/tmp/mara/doppel")
CACHE = Path("/tmp/mara/cache")
HERE = Path(__file__).resolve().parent

SETTINGS: dict[str, Any] = {
    "language": "en",
    "timezone": "Europe/Berlin",
    "persona": {"name": "mara", "me": ["telegram:1001", "mara_l"]},
    "archive": ["archive/telegram/result.json", "archive/twitter-2025-03-01.zip"],
    "exclude": {"words": ["surprise party"], "before": "2020-01-01"},
    "cleaning": {"contact_share": 0.8},
    "people": [{"name": "Tom", "accounts": ["telegram:2002", "twitter:3003"]}],
    "model": {"base": "tiny-base", "dtype": "float32", "device": "cpu"},
    "training": {
        "rank": 1,
        "alpha": 2,
        "learning_rate": 0.02,
        "epochs": 1,
        "sessions_per_step": 32,
        "max_length": 256,
        "minutes": 600,
        "seed": 7,
        "gate": False,
    },
}
MIXED = {"training": {**SETTINGS["training"], "mix": [{"path": "mix.json", "share": 0.1}], "replay": 0.05}}
CHAT = {"transcript": "chat", "model": {**SETTINGS["model"], "base": "tiny-chat"}}
LIMITS = Limits(trials=3, trial_minutes=0.02)

# The export ----------------------------------------------------------------------------------------------

ASKED = (
    "have you seen the {thing}?", "what do you think of the {thing} in {place}", "are you coming to {place} on {day}?",
    "did {who} say anything about the {thing}", "where did you put the {thing}", "how was {place}",
    "can i borrow the {thing} until {day}?", "who pays for the {thing}", "is {place} still open on {day}?",
)  # fmt: skip
SAID = (
    "haha no idea", "the {thing} is in {place}, as always", "not before {day}", "ask {who}, i only carried it",
    "yes!! {day} is perfect", "hmm {place} again", "only with {food}", "i dreamt of {food} in {place} last {day}",
    "no {thing}, no {food}", "oh the {thing}", "later, i am still in {place}", "{who} has {number} of them already",
    "it took me {number} minutes to find {place}", "fine by me, {day} then", "never again without {food}",
)  # fmt: skip
ASKED_ZH = (
    "{day_zh}去不去{place_zh}？", "你看到我的{thing_zh}了吗", "{food_zh}和那个{thing_zh}你要不要", "{place_zh}怎么样",
    "谁拿了{thing_zh}", "{day_zh}一起吃{food_zh}吧", "听说{place_zh}又涨价了", "{thing_zh}修好了没",
)  # fmt: skip
SAID_ZH = (
    "哈哈哈不知道", "{thing_zh}在{place_zh}", "{day_zh}可以", "先吃{food_zh}再说", "没有{food_zh}我不去",
    "第{number}次了", "{place_zh}太远啦", "好呀 {day_zh}见", "刚到{place_zh}", "那个{thing_zh}别提了",
    "花了{number}分钟找{place_zh}",
)  # fmt: skip
NAMES = {1001: "Mara Lind", 2002: "Tom Berg", 2003: "Lena", 2004: "Kim"}
WORDS: dict[str, tuple[str, ...]] = {
    "thing": ("ladder", "blue kettle", "map", "old radio", "tent", "red bike", "piano", "telescope", "drill", "canoe"),
    "place": ("the harbour", "the attic", "Oldenbrück", "the second floor", "the library", "the lake", "Nordhaven"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "who": ("ines", "the neighbour", "my aunt", "paul", "nobody", "the caretaker"),
    "food": ("plum cake", "dumplings", "lentil soup", "tea", "pancakes", "rye bread", "pickles"),
    "thing_zh": ("梯子", "水壶", "地图", "收音机", "帐篷", "自行车", "望远镜", "雨伞"),
    "place_zh": ("码头", "阁楼", "图书馆", "湖边", "二楼", "菜市场", "老车站"),
    "day_zh": ("周一", "周二", "周三", "周四", "周五", "周六", "周日"),
    "food_zh": ("饺子", "米线", "豆浆", "包子", "桂花糕", "汤圆"),
}


def phrase(draw: random.Random, patterns: tuple[str, ...]) -> str:
    """A made-up sentence."""
    words = {name: draw.choice(several) for name, several in WORDS.items()}
    return draw.choice(patterns).format(number=draw.randint(2, 98), **words)


def chat(draw: random.Random, others: list[int], count: int, start: int, *, chinese: bool) -> Iterator[dict[str, Any]]:
    """Conversations of user 1001 with others, one every few hours or days, of a few turns each."""
    asked, said = (ASKED_ZH, SAID_ZH) if chinese else (ASKED, SAID)
    number, at = start, 110_000_000 + start * 1000  # seconds after July 2017: 2021
    for _ in range(count):
        at += draw.randint(20_000, 400_000)
        for _ in range(draw.randint(1, 4)):
            other = draw.choice(others)
            for sender, patterns, most in ((other, asked, 2), (1001, said, 3)):
                for _ in range(draw.randint(1, most)):
                    at += draw.randint(3, 90)
                    number += 1
                    yield telegram_message(number, sender, phrase(draw, patterns), at=at, **{"from": NAMES[sender]})


def write_archive() -> None:
    """A Telegram account with two chats of two, a third one that is forgotten later, and a group; a Twitter archive."""
    draw = random.Random(1)
    tom = list(chat(draw, [2002], 150, 0, chinese=False))
    for number, text in enumerate(
        (
            "my new address is mara.lind@postfach-nordhaven.de",
            "call me on +49 151 23456789 when you are there",
            "the surprise party is on friday, tell nobody",  # excluded
        )
    ):
        tom.append(telegram_message(90_000 + number, 1001, text, at=125_000_000 + 60 * number))
    lena = list(chat(draw, [2003], 130, 10_000, chinese=True))
    kim = list(chat(draw, [2004], 12, 20_000, chinese=False))
    group = list(chat(draw, [2002, 2003, 2004], 60, 30_000, chinese=False))
    content = telegram_account(
        telegram_chat(tom, id=2002, name="Tom"),
        telegram_chat(lena, id=2003, name="Lena"),
        telegram_chat(kim, id=2004, name="Kim"),
        telegram_chat(group, id=7007, name="Canoe club", type="private_group"),
    )
    write_json(HOME / "archive" / "telegram" / "result.json", content)
    tweets = [tweet(2000 + number, f"{phrase(draw, SAID)}, said {phrase(draw, SAID)}") for number in range(12)]
    answers = ("it was the caretaker, he thought it was his", "neither, i am on a ladder", "that is what i said too")
    for number, text in enumerate(answers, 1):
        tweets.append(tweet(3000 + number, f"@tom {text}", in_reply_to_status_id_str=str(900 + number)))
    for number, one in enumerate(tweets):
        one["tweet"]["created_at"] = f"Wed Oct 13 {number:02}:30:00 +0000 2021"
    write_zip(HOME / "archive" / "twitter-2025-03-01.zip", twitter_files(tweets=tweets))


# What is made --------------------------------------------------------------------------------------------


def config_of(**more: Any) -> Config:
    """The home's configuration, with some sections replaced."""
    return parse_config({**SETTINGS, **more}, HOME / "config.yaml")


def make_dataset(config: Config) -> dict[str, Any]:
    """Builds, fetches two posts, forgets Kim and builds again."""
    x = FakeX()
    try:
        x.posts = {
            "901": {"text": "who took the canoe?", "created_at": "2021-10-12T20:00:00.000Z"},
            "902": {"text": "tea or coffee, everybody", "created_at": "2021-10-13T11:00:00.000Z"},
        }
        fetched = fetch_parents(config, lambda _: None, base=x.url)
    finally:
        x.close()
    build_dataset(config, Silent())
    gone = forget(config, "Kim")
    report = write_page(config, build_dataset(config, Silent()), measure_for(config))
    sessions = list(read_sessions(config.data_dir))
    texts = [bubble for one in sessions for turn in one.turns for bubble in turn.bubbles]
    return {
        "digest": dataset_digest(config.data_dir),
        "archive_digest": config.archive_digest,
        "files": files_of(config.data_dir),
        "sessions": len(sessions),
        "splits": report.sessions,
        "messages": len(texts),
        "own_messages": report.owner.kept,
        "read": report.read,
        "dropped": report.dropped,
        "scrubbed": report.scrubbed,
        "scrub_key": hashlib.sha256((config.data_dir / "scrub.key").read_bytes()).hexdigest(),
        "stand_ins": [text for text in texts if text.startswith(("my new address is", "call me on"))],
        "first": msgspec.to_builtins(sessions[0]),
        "contacts": msgspec.to_builtins(read_contacts(config.data_dir)),
        "habits": json.loads((config.data_dir / "habits.json").read_bytes()),
        "forgotten": {"accounts": gone.accounts, "messages": gone.messages, "dropped": report.dropped["forgotten"]},
        "fetched": msgspec.to_builtins(fetched),
        "parents": [json.loads(line) for line in (HOME / "data/mara.parents.jsonl").read_bytes().splitlines()],
    }


def make_adapters(config: Config) -> dict[str, Any]:
    """0001, trained, tuned, examined and asked about; 0002, trained on from it, and in use; 0003, imported; 0004,
    trained in a chat template.
    """
    fit(config)
    tune_sampling(config, "1", quick=True)
    evaluate_version(config, "1", quick=True)
    offer = gather_quiz(config, "1", 12).offer(4)
    write_offer(config.data_dir, offer)
    folder = published(config.adapters_dir, "0001")
    for name, verdicts in (("Lena", [True, False, True, True]), ("汤姆", [False, False, True])):
        record(folder, score(next_sitting(offer, read_quizzes(folder)), verdicts, name))
    fit(config_of(**MIXED), origin="1")
    elsewhere = HOME / "elsewhere"
    elsewhere.mkdir()
    save_lora(Path("tiny-base"), elsewhere, seed=3, rank=1)
    import_adapter(config, elsewhere, force=False)
    shutil.rmtree(elsewhere)
    fit(config_of(**CHAT))
    use(config.adapters_dir, "0003")
    rollback(config.adapters_dir)
    in_use = current(config.adapters_dir)
    assert in_use is not None
    facts: dict[str, Any] = {"current": in_use.name, "versions": {}}
    for version in versions(config.adapters_dir):
        folder = config.adapters_dir / version
        persona = read_persona(folder)
        facts["versions"][version] = {
            "manifest": msgspec.to_builtins(read_manifest(folder)),
            "habits": msgspec.to_builtins(persona.habits),
            "sampling": msgspec.to_builtins(persona.sampling(config.reply)),
            "guard": persona.guard is not None,
            "metrics": len(list(read_metrics(folder / "metrics.jsonl"))),
        }
    written = json.loads((config.adapters_dir / "0001" / "fidelity.json").read_bytes())
    facts["fidelity"] = {
        "keys": sorted(written),
        "figures": written["figures"],
        "quizzes": written["quizzes"],
        "replies": len(written["replies"]),
    }
    offered = read_offer(config.data_dir)
    assert offered is not None
    facts["offer"] = {
        "version": offered.version,
        "seeds": [one.seed for one in offered.sittings],
        "questions": [[len(one.questions), sum(two.is_real for two in one.questions)] for one in offered.sittings],
        "first": msgspec.to_builtins(offered.sittings[0].questions[0]),
    }
    guard = read_persona(config.adapters_dir / "0001").guard
    assert guard is not None
    learned = [one for one in read_sessions(config.data_dir) if one.split == "train"]
    texts = ["\n".join(turn.bubbles) for one in learned for turn in one.turns]
    facts["guarded"] = [text for text in texts if guard.objects(text) is not None][:3]
    return facts


def ctrl_c_at(step: int) -> Any:
    """A training step that sends this process a signal as Ctrl-C does, or SIGKILL if `step` is negative."""
    whole, left = PersonaTrainer.training_step, [abs(step)]

    def training_step(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT if step > 0 else signal.SIGKILL)
        return whole(*arguments, **named)

    return training_step


def stopped(config: Config, step: int, **more: Any) -> None:
    """A training that ends with Ctrl-C."""
    whole = PersonaTrainer.training_step
    PersonaTrainer.training_step = ctrl_c_at(step)  # type: ignore[method-assign]
    try:
        fit(config, **more)
    except Interrupted as error:
        print(error)
    finally:
        PersonaTrainer.training_step = whole  # type: ignore[method-assign]


def make_training_from(config: Config, target: Path) -> dict[str, Any]:
    """A training on from version 0001 that was stopped by Ctrl-C; packed and removed."""
    stopped(config, 2, origin="1")
    folder = work_folder(config)
    pack(target, HOME, f"data/{folder.name}")
    started = json.loads((folder / "plan.json").read_bytes())
    shutil.rmtree(folder)
    return {
        "parent": started["parent"],
        "parent_score": started["parent_score"],
        "began_at": started["plan"]["began_at"],
    }


def make_training(config: Config) -> dict[str, Any]:
    """Stopped by Ctrl-C, gone on with, and killed before the next checkpoint."""
    stopped(config, 8)
    done = subprocess.run([sys.executable, __file__, "killed-training"], check=False)
    assert done.returncode == -signal.SIGKILL
    folder = work_folder(config)
    steps = sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))
    metrics = list(read_metrics(folder / "metrics.jsonl"))
    return {
        "files": files_of(folder),
        "plan": json.loads((folder / "plan.json").read_bytes())["plan"],
        "before": json.loads((folder / "plan.json").read_bytes())["before"],
        "step": steps[-1],
        "checkpoints": steps,
        "metrics": [msgspec.to_builtins(one) for one in metrics if one.step <= steps[-1]],
        "metrics_after_it": sum(one.step > steps[-1] for one in metrics),
    }


def make_tuning(config: Config) -> dict[str, Any]:
    """Two trials that ended, one that was given up, and one that was killed."""
    tuning._Bench._measured = lambda _: 20_000.0  # type: ignore[method-assign]  # else they are as short as it is slow
    tune(config, Limits(trials=2, trial_minutes=LIMITS.trial_minutes))
    report = tuning.Attempt.report
    tuning.Attempt.report = lambda *score: report(*score) or True  # type: ignore[method-assign]
    tuned = tune(config, LIMITS)
    tuning.Attempt.report = report  # type: ignore[method-assign]
    done = subprocess.run([sys.executable, __file__, "killed-tuning"], check=False)
    assert done.returncode == -signal.SIGKILL
    journal = [json.loads(line) for line in (tuning_folder(config) / "journal.log").read_bytes().splitlines()]
    asked = [one for one in journal if one.get("trial_id") == LIMITS.trials and "param_name" in one]
    return {
        "trials": msgspec.to_builtins(tuned.trials),
        "best": msgspec.to_builtins(tuned.best),
        "base": tuned.base,
        "trial_tokens": tuned.trial_tokens,
        "epoch_tokens": tuned.epoch_tokens,
        "limits": msgspec.to_builtins(LIMITS),
        "killed": {one["param_name"]: one["param_value_internal"] for one in asked},
    }


START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def after(minutes: float) -> datetime:
    """So many minutes after START."""
    return START + timedelta(minutes=minutes)


def said(
    number: int, text: str, *, chat: str, kind: Any, platform: str = "telegram", addressed: bool = True
) -> Received:
    """A message of somebody's."""
    return Received(
        platform=platform,
        event_id=f"e{number}",
        chat=chat,
        kind=kind,
        sender="5001" if kind == "dm" else "5002",
        text=text,
        message_id=f"m{number}",
        addressed=addressed,
        sent_at=after(number),
    )


async def talk(store: Store) -> None:
    """What a daemon writes in some days: every state there is but `sending`."""
    one = await store.run(inbox.receive, said(1, "are you there?", chat="5001", kind="dm"), after(1))
    await store.run(inbox.receive, said(2, "你在吗？\n在吗", chat="5001", kind="dm"), after(2))
    assert one is not None
    waiting = await store.run(inbox.waiting, one.id)
    ids = [message.id for message in waiting]
    await store.run(
        outbox.put_turn,
        one.id,
        "reply",
        ["haha yes", "刚到湖边", "what is it?"],
        adapter="0001",
        now=after(3),
        answers=ids,
    )
    for number in range(2):
        bubble = await store.run(outbox.next_pending, one.id)
        assert bubble is not None
        await store.run(outbox.begin_sending, bubble.id, after(4 + number))
        await store.run(outbox.mark_sent, bubble.id, f"s{number}", after(4.5 + number))
    bubble = await store.run(outbox.next_pending, one.id)
    assert bubble is not None
    await store.run(outbox.begin_sending, bubble.id, after(6))
    await store.run(outbox.mark_unknown, bubble.id, "the connection broke", after(6.5))
    await store.run(inbox.receive, said(7, "tell me a secret", chat="5001", kind="dm"), after(7))
    waiting = await store.run(inbox.waiting, one.id)
    await store.run(inbox.settle, [waiting[0].id], "failed", "the engine failed three times")
    await store.run(inbox.receive, said(8, "and the canoe?", chat="5001", kind="dm"), after(8))
    waiting = await store.run(inbox.waiting, one.id)
    await store.run(inbox.count_attempt, [waiting[0].id], "the engine is full")  # new, tried once

    group = await store.run(
        inbox.receive, said(10, "plum cake, anybody?", chat="-7007", kind="group", addressed=False), after(10)
    )
    assert group is not None
    await store.run(inbox.receive, said(11, "@mara_bot you too?", chat="-7007", kind="group"), after(11))
    waiting = await store.run(inbox.waiting, group.id)
    await store.run(
        outbox.put_turn, group.id, "reply", ["only with tea", "or without"], adapter="0002", now=after(12),
        answers=[waiting[0].id],
    )  # fmt: skip
    bubble = await store.run(outbox.next_pending, group.id)
    assert bubble is not None
    await store.run(outbox.begin_sending, bubble.id, after(13))
    await store.run(outbox.mark_failed, bubble.id, "the bot was removed from the group", after(13.5))
    bubble = await store.run(outbox.next_pending, group.id)
    assert bubble is not None
    await store.run(outbox.begin_sending, bubble.id, after(14))
    await store.run(outbox.postpone, bubble.id, "too many requests", after(90), after(14.5))

    await store.run(slots.known_since, "morning", "30 8 * * 1-5", after(20))
    await store.run(slots.known_since, "now-and-then", "every 6h", after(20))
    slot = await store.run(slots.claim, "morning", after(30), "posted", now=after(31))
    channel = await store.run(inbox.find_chat, "discord", "123456789012345678", now=after(31))
    await store.run(outbox.put_turn, channel.id, "post", ["早，第12次了"], adapter="0002", now=after(31), slot_id=slot)
    await store.run(slots.skip, "morning", [after(60)], after(61))
    await store.run(slots.claim, "now-and-then", after(62), "failed", now=after(63), reason="nobody is there")
    web = await store.run(
        inbox.receive, said(70, "hello from the page", chat="web", kind="dm", platform="web"), after(70)
    )
    assert web is not None
    waiting = await store.run(inbox.waiting, web.id)
    await store.run(
        outbox.put_turn, web.id, "reply", ["hello yourself"], adapter="0002", now=after(71), answers=[waiting[0].id]
    )
    bubble = await store.run(outbox.next_pending, web.id)
    assert bubble is not None
    await store.run(outbox.begin_sending, bubble.id, after(71))
    await store.run(outbox.mark_sent, bubble.id, "w1", after(71.5))


async def be_killed_while_sending(store: Store) -> None:
    """The daemon again: it is killed while it sends the post, and while another chat's bubble is on its way."""
    channel = await store.run(inbox.find_chat, "discord", "123456789012345678", now=after(80))
    dm = await store.run(inbox.find_chat, "telegram", "5001", now=after(80))
    waiting = await store.run(inbox.waiting, dm.id)
    await store.run(
        outbox.put_turn, dm.id, "reply", ["it sank", "沉了"], adapter="0002", now=after(81), answers=[waiting[0].id]
    )
    await store.run(inbox.receive, said(82, "no!", chat="5001", kind="dm"), after(82))
    for chat_id in (channel.id, dm.id):
        bubble = await store.run(outbox.next_pending, chat_id)
        assert bubble is not None
        await store.run(outbox.begin_sending, bubble.id, after(83))
    os.kill(os.getpid(), signal.SIGKILL)


def make_database(config: Config) -> dict[str, Any]:
    """Written, closed, and written on by a daemon that was killed, so that part of it is in the write-ahead log."""
    store = Store(config.store_url)
    asyncio.run(talk(store))
    store.close()
    done = subprocess.run([sys.executable, __file__, "killed-daemon"], check=False)
    assert done.returncode == -signal.SIGKILL
    path = HOME / "data" / "doppel.db"
    copy = Path(shutil.copytree(path.parent, HOME / "look")) / path.name  # whoever looks empties the log
    connection = sqlite3.connect(copy)
    connection.row_factory = sqlite3.Row
    tables = ("chats", "inbox", "outbox", "slots", "cursors")
    rows = {name: [dict(row) for row in connection.execute(f"select * from {name} order by 1")] for name in tables}
    migrations = [tuple(row) for row in connection.execute("select number, name from migrations")]
    connection.close()
    shutil.rmtree(copy.parent)
    return {"files": sorted(one.name for one in path.parent.glob("doppel.db*")), "migrations": migrations, **rows}


def make_configs() -> dict[str, Any]:
    """What the hand-written configurations say, and that one of them names every key there is."""
    facts: dict[str, Any] = {}
    for path in sorted((HERE / "configs").glob("*.yaml")):
        facts[path.name] = load_config(path).model_dump(mode="json")
    given = yaml.safe_load((HERE / "configs" / "every_key.yaml").read_text(encoding="utf-8"))
    missing = list(unnamed(Config, given, ""))
    assert not missing, missing
    return facts


def unnamed(model: type[BaseModel], given: Any, at: str) -> Iterator[str]:
    """Keys that a configuration could have and does not; of lists, in their first item."""
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        if name not in given:
            if (at, name) != ("posts.", "every"):  # either cron or every; the second post has the other
                yield at + name
            continue
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if inner is not None:
            value = given[name]
            yield from unnamed(inner, value[0] if isinstance(value, list) else value, f"{at}{name}.")


# Archives ------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> list[str]:
    """Names of all files in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def pack(target: Path, root: Path, *names: str) -> None:
    """Puts files and folders below `root` into a compressed archive, without owners and in a fixed order."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = int(info.mtime)
        return info

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.add(root / name, name, filter=plain)
    target.write_bytes(gzip.compress(content.getvalue(), 9, mtime=0))


def main(folder: Path) -> None:
    """Makes all of it."""
    for path in (HOME, CACHE):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    os.chdir(HOME)
    expected: dict[str, Any] = {"version": doppel.__version__, "home": str(HOME), "configs": make_configs()}
    (HOME / "config.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False), encoding="utf-8")
    config = load_config(HOME / "config.yaml")
    expected["settings"] = config.model_dump(mode="json")
    build_base(HOME / "tiny-base", hidden_size=16)
    shutil.copytree(HOME / "tiny-base", HOME / "tiny-chat", copy_function=os.link)
    (HOME / "tiny-chat" / "chat_template.jinja").write_text(GEMMA, encoding="utf-8")
    dialogues = [
        {"instruction": f"Count to {n}.", "output": ", ".join(map(str, range(1, n + 1)))} for n in range(2, 30)
    ]
    (HOME / "mix.json").write_text(json.dumps(dialogues), encoding="utf-8")
    write_archive()
    expected["dataset"] = make_dataset(config)
    expected["adapter"] = make_adapters(config)
    expected["training_from"] = make_training_from(config, folder / "training_from.tar.gz")
    expected["training"] = make_training(config)
    expected["tuning"] = make_tuning(config)
    expected["database"] = make_database(config)
    expected["dataset"]["files"] = files_of(config.data_dir)
    expected["dataset"]["made_from"] = data_made_from(config)
    expected["base"] = {"digest": expected["adapter"]["versions"]["0001"]["manifest"]["base"]["digest"]}
    pack(folder / "base.tar.gz", HOME, "tiny-base", "tiny-chat")
    beside = ("config.yaml", "archive", "mix.json", "data/mara.forgotten.json", "data/mara.parents.jsonl")
    pack(folder / "dataset.tar.gz", HOME, *beside, "data/mara")
    pack(folder / "adapter.tar.gz", HOME, "adapters")
    pack(folder / "training.tar.gz", HOME, "data/mara.training", "data/.mara.training.lock")
    pack(folder / "tuning.tar.gz", HOME, "data/mara.tuning")
    pack(folder / "database.tar.gz", HOME, *(f"data/{name}" for name in expected["database"]["files"]))
    pack(folder / "cache.tar.gz", CACHE, "replay")
    expected["cache"] = {"files": files_of(CACHE / "replay")}
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ |= {
        "DOPPEL_CACHE": str(CACHE),
        "X_BEARER_TOKEN": "made-up",
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
    }
    if sys.argv[1] == "killed-training":
        PersonaTrainer.training_step = ctrl_c_at(-3)  # type: ignore[method-assign]
        fit(config_of())
    elif sys.argv[1] == "killed-tuning":
        tuning.Attempt.report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
        tune(config_of(), Limits(trials=LIMITS.trials + 1, trial_minutes=LIMITS.trial_minutes))
    elif sys.argv[1] == "killed-daemon":
        asyncio.run(be_killed_while_sending(Store(config_of().store_url)))
    else:
        main(Path(sys.argv[1]).resolve())
