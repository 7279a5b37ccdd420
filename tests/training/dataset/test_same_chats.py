"""Which chats are joined, and which never are: by what the build yields."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from doppel.config import parse_config
from doppel.errors import UserError
from doppel.personal_data import find_person, person_pseudonym
from tests.training import conversations as talks
from tests.training.conversations import FIRST, SECOND, TALK, Line
from tests.training.dataset.test_build import sessions_of
from tests.training.dataset.test_joined_formats import ANN, WHOLE, built, contacts, said
from training.dataset.report.build_report import Report
from training.personal_data import DataSet

SMALL_TALK = ("good morning", "hi, how are you", "fine, and you", "see you later", "ok", "haha", "happy new year!")
WORDS = ("boat", "garden", "ladder", "lamp", "letter", "market", "paint", "plumber", "rain", "soup", "train", "window")


def texts_of(report: Report, root: Path) -> list[list[str]]:
    """What was said, by chat."""
    chats: dict[str, list[str]] = {}
    for session in sessions_of(root):
        chats.setdefault(session.chat, []).extend(bubble for turn in session.turns for bubble in turn.bubbles)
    return sorted(chats.values())


def test_a_chat_stays_one_over_three_exports_and_the_latest_name_is_known(tmp_path: Path) -> None:
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, TALK[:6], "Tom Berg"),
        lambda to: talks.whatsapp(to, TALK[1:7], "Tommy", phone="iphone"),
        lambda to: talks.whatsapp(to, TALK[2:], "Tom the Gardener"),
    )
    assert said(tmp_path) == WHOLE
    assert [(sorted(chat.names), chat.copies) for chat in report.joined] == [
        (["Tom Berg", "Tom the Gardener", "Tommy"], 10)
    ]
    (contact,) = contacts(tmp_path)
    assert sorted([contact.account, *contact.other_accounts]) == ["Tom Berg", "Tom the Gardener", "Tommy"]


def test_the_hours_between_two_time_zones_are_in_the_report(tmp_path: Path) -> None:
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, TALK[:7], phone="iphone"),
        lambda to: talks.whatsapp(to, TALK[1:], "Tommy", phone="iphone", zone="Asia/Kolkata"),
    )
    assert said(tmp_path) == WHOLE
    (chat,) = report.joined
    assert sorted(map(abs, chat.shifts.values())) == [4.5]


def test_a_renamed_person_has_one_pseudonym_in_all_chats(tmp_path: Path) -> None:
    def second_phone(to: Path) -> None:
        talks.whatsapp(to, SECOND, "Tommy")
        lines = [
            Line("tom", "who brings the tent", 90_000.0),
            Line("lia", "me", 90_060.0),
            Line("ann", "fine", 90_120.0),
        ]
        group = "".join(
            f"{talks.at(line):%d.%m.%y, %H:%M} - {name}: {line.text}\n"
            for line, name in zip(lines, ("Tommy", "Lia", "Ann Reed"), strict=True)
        )
        (to / "WhatsApp Chat with Camping.txt").write_text(group)

    built(tmp_path, lambda to: talks.whatsapp(to, FIRST), second_phone)
    speakers = {turn.speaker for session in sessions_of(tmp_path) for turn in session.turns} - {"me"}
    by_name = {contact.name: contact for contact in contacts(tmp_path)}
    assert speakers == {contact.pseudonym for contact in by_name.values()}
    assert len(speakers) == 2


def test_what_one_export_knows_of_the_owner_the_other_learns(tmp_path: Path) -> None:
    built(
        tmp_path,
        lambda to: talks.discord_package(to, TALK),
        lambda to: talks.discord_json(to, TALK),
        persona={"name": "sample"},
    )
    assert said(tmp_path) == WHOLE


def test_the_same_words_twice_in_a_minute_are_two_messages(tmp_path: Path) -> None:
    lines = [*TALK[:5], Line("ann", "ok", 300.0), Line("ann", "ok", 305.0), Line("tom", "ok", 310.0), *TALK[7:]]
    built(
        tmp_path,
        lambda to: talks.whatsapp(to, lines),
        lambda to: talks.whatsapp(to, lines, "Tommy", phone="iphone"),
    )
    assert said(tmp_path) == [(line.writer == "ann", line.text) for line in lines]


def test_a_friends_copy_of_a_chat_is_the_same_chat(tmp_path: Path) -> None:
    report = built(
        tmp_path,
        lambda to: talks.telegram(to, FIRST),
        lambda to: talks.telegram(to, SECOND, owner=2002, first=5000),
        persona={"name": "sample", "me": ["Ann Reed"]},
    )
    assert report.dropped == {"duplicate": 4}
    assert said(tmp_path) == WHOLE


# What is never joined


def test_two_groups_of_one_name_are_two_chats(tmp_path: Path) -> None:
    def family(*names: str, words: Sequence[str], at: float = 0.0) -> Any:
        def write(to: Path) -> None:
            to.mkdir(parents=True, exist_ok=True)
            lines = [f"05.03.23, 14:0{n} - {names[n % len(names)]}: {text}\n" for n, text in enumerate(words)]
            (to / "WhatsApp Chat with Family.txt").write_text("".join(lines))

        return write

    first = family(
        "Ann Reed", "Mum", "Dad", words=["who cooks on sunday", "i do", "i bring wine", "great", "see you all"]
    )
    other = family(
        "Ann Reed",
        "Pete",
        "Jule",
        words=["the attic is wet again", "call the roofer", "did so", "and then", "he comes at noon"],
    )
    report = built(tmp_path, first, other)
    assert (report.kept, report.dropped, report.joined) == (10, {}, [])
    assert len(texts_of(report, tmp_path)) == 2
    assert not any({"i do", "did so"} <= set(texts) for texts in texts_of(report, tmp_path))


def test_a_group_that_was_exported_twice_and_renamed_is_one(tmp_path: Path) -> None:
    def group(title: str, first: int, last: int) -> Any:
        texts = [
            "who books the train",
            "i do it tonight",
            "window seats please",
            "three of them",
            "paid and printed",
            "bring cards",
            "and cake",
        ]
        names = ["Tom", "Ann Reed", "Lia"]

        def write(to: Path) -> None:
            to.mkdir(parents=True, exist_ok=True)
            lines = [f"05.03.23, 14:0{n} - {names[n % 3]}: {texts[n]}\n" for n in range(first, last)]
            (to / f"WhatsApp Chat with {title}.txt").write_text("".join(lines))

        return write

    report = built(tmp_path, group("Rome", 0, 6), group("Rome 2023", 1, 7))
    assert (report.kept, report.dropped) == (7, {"duplicate": 5})
    assert len(texts_of(report, tmp_path)) == 1


def test_a_group_of_two_writers_and_the_private_chat_with_one_of_them_are_two(tmp_path: Path) -> None:
    def both(to: Path) -> None:
        to.mkdir(parents=True)
        (to / "WhatsApp Chat with Trip to Rome.txt").write_text(
            "05.03.23, 14:05 - Tom created group “Trip to Rome”\n05.03.23, 14:09 - Tom added Lia\n"
            "05.03.23, 14:11 - Tom: who books the train\n05.03.23, 14:13 - Ann Reed: i do it tonight\n"
        )
        (to / "WhatsApp Chat with Tom.txt").write_text(
            "05.03.23, 14:12 - Ann Reed: is lia angry with us\n05.03.23, 14:14 - Tom: a little\n"
        )

    report = built(tmp_path, both)
    assert texts_of(report, tmp_path) == [
        ["is lia angry with us", "a little"],
        ["who books the train", "i do it tonight"],
    ]
    assert {session.kind for session in sessions_of(tmp_path)} == {"group", "dm"}


def test_a_wish_sent_to_everybody_joins_nobody(tmp_path: Path) -> None:
    wish = "happy new year to you and all your family from us in the north"
    exports = [
        lambda to, name=name, answer=answer: talks.whatsapp(
            to,
            [Line("ann", wish, 0.0), Line("tom", answer, 100.0), Line("ann", "hugs from all of us here", 200.0)],
            name,
        )
        for name, answer in (("Tom", "you too, old friend"), ("Lia", "same to you dear"), ("Max", "thanks a lot"))
    ]
    report = built(tmp_path, *exports)
    assert (report.kept, report.dropped, report.joined) == (
        9 - report.dropped.get("near-duplicate", 0),
        report.dropped,
        [],
    )
    assert len(contacts(tmp_path)) == 3


def test_two_people_with_service_ids_are_two_however_they_talk(tmp_path: Path) -> None:
    report = built(
        tmp_path,
        lambda to: talks.telegram(to, TALK),
        _telegram_with_somebody_else,
    )
    assert report.joined == []
    assert len(contacts(tmp_path)) == 2


def _telegram_with_somebody_else(to: Path) -> None:
    path = talks.telegram(to, TALK, id=3003, name="Max")
    path.write_text(path.read_text().replace("user2002", "user3003"))


def _chats(root: Path, chats: dict[str, Sequence[Line]], **config: Any) -> Report:
    return built(
        root,
        *(
            lambda to, name=name, lines=lines: talks.whatsapp(to, lines, name, phone="iphone")
            for name, lines in chats.items()
        ),
        **config,
    )


@settings(deadline=None, max_examples=25)
@given(
    words=st.lists(
        st.tuples(st.booleans(), st.sampled_from(SMALL_TALK), st.integers(0, 7200)), min_size=1, max_size=30
    ),
    others=st.lists(
        st.tuples(st.booleans(), st.sampled_from(SMALL_TALK), st.integers(0, 7200)), min_size=1, max_size=30
    ),
)
def test_chats_of_small_talk_stay_apart(
    words: list[tuple[bool, str, int]], others: list[tuple[bool, str, int]]
) -> None:
    chats = {
        name: [Line("ann" if mine else "tom", text, at) for mine, text, at in sorted(lines, key=lambda line: line[2])]
        for name, lines in (("Tom", words), ("Lia", others))
    }
    assume(any(line.writer == "ann" for lines in chats.values() for line in lines))
    with tempfile.TemporaryDirectory() as folder:
        report = _chats(Path(folder), chats)
    assert report.joined == []
    assert "duplicate" not in report.dropped


SENTENCES = st.lists(st.sampled_from(WORDS), min_size=3, max_size=6, unique=True).map(" ".join)
TALKS = st.lists(
    st.tuples(st.booleans(), st.one_of(SENTENCES, SENTENCES, st.sampled_from(SMALL_TALK)), st.integers(1, 400)),
    min_size=14,
    max_size=60,
)


def _lines(talk: list[tuple[bool, str, int]]) -> list[Line]:
    lines, at = [], 0.0
    for mine, text, pause in talk:
        at += pause
        lines.append(Line("ann" if mine else "tom", text, at))
    return lines


@settings(deadline=None, max_examples=40)
@given(
    talk=TALKS,
    cuts=st.tuples(st.floats(0.55, 1.0), st.floats(0.0, 0.45)),
    phones=st.tuples(st.sampled_from(["android", "iphone"]), st.sampled_from(["android", "iphone"])),
    zone=st.sampled_from(["Europe/Berlin", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "UTC"]),
    name=st.sampled_from(["Tom Berg", "Tommy", "+49 170 0000000"]),
)
def test_two_overlapping_exports_of_a_chat_are_the_chat(
    talk: list[tuple[bool, str, int]], cuts: tuple[float, float], phones: tuple[str, str], zone: str, name: str
) -> None:
    lines = _lines(talk)
    first, second = lines[: round(cuts[0] * len(lines))], lines[round(cuts[1] * len(lines)) :]
    assume({line.writer for line in first} == {line.writer for line in second} == {"ann", "tom"})
    shared = [line for line in first if line in second and line.text not in SMALL_TALK]
    assume(all(sum(line.writer == who for line in shared) > 1 for who in ("ann", "tom")) and len(set(shared)) > 4)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        report = built(
            root,
            lambda to: talks.whatsapp(to, first, phone=phones[0]),
            lambda to: talks.whatsapp(to, second, name, phone=phones[1], zone=zone),
            cleaning={"near_duplicates": False},
        )
        assert said(root) == [(line.writer == "ann", line.text) for line in lines]
        assert report.dropped == {"duplicate": len(first) + len(second) - len(lines)}
        assert len(contacts(root)) == 1


# What follows from it


@pytest.mark.parametrize("exclude", [{"people": ["Tom Berg"]}, {"people": ["Tommy"]}])
def test_an_excluded_person_is_left_out_under_every_name(tmp_path: Path, exclude: dict[str, list[str]]) -> None:
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy"),
        exclude=exclude,
    )
    assert {text for _, text in said(tmp_path)} == {line.text for line in TALK if line.writer == "ann"}
    assert report.dropped["excluded"] == sum(line.writer == "tom" for line in TALK)
    assert contacts(tmp_path) == []


def test_an_excluded_chat_is_left_out_under_every_name(tmp_path: Path) -> None:
    other = [Line("ann", "who feeds the cat", 5.0), Line("tom", "the neighbours do", 99.0)]
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy"),
        lambda to: talks.whatsapp(to, other, "Max"),
        exclude={"chats": ["Tom Berg"]},
    )
    assert said(tmp_path) == [(True, "who feeds the cat"), (False, "the neighbours do")]
    assert report.dropped == {"duplicate": 4, "excluded": 8}


@pytest.mark.parametrize("name", ["Tom Berg", "Tommy"])
def test_forgetting_one_name_forgets_the_person(tmp_path: Path, name: str) -> None:
    other = [Line("ann", "who feeds the cat", 5.0), Line("tom", "the neighbours do", 99.0)]
    exports = (
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy"),
        lambda to: talks.whatsapp(to, other, "Max"),
    )
    built(tmp_path, *exports)
    config = parse_config({"archive": ["export 0"], "persona": ANN}, tmp_path / "config.yaml")
    store = DataSet(config)
    store.erase(find_person(config, [store], name))
    remaining = [(True, "who feeds the cat"), (False, "the neighbours do")]
    assert said(tmp_path) == remaining
    for folder in tmp_path.glob("export *"):
        shutil.rmtree(folder)
    built(tmp_path, *exports)
    assert said(tmp_path) == remaining
    for folder in tmp_path.glob("export *"):
        shutil.rmtree(folder)
    with pytest.raises(UserError):  # also if only the export with the other name is left
        built(tmp_path, exports[1 if name == "Tom Berg" else 0])


def test_a_person_in_the_configuration_has_all_names(tmp_path: Path) -> None:
    built(
        tmp_path,
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy"),
        people=[{"name": "Thomas", "accounts": ["whatsapp:Tommy", "telegram:2002"]}],
    )
    assert {contact.pseudonym for contact in contacts(tmp_path)} == {person_pseudonym("Thomas")}
    speakers = {turn.speaker for session in sessions_of(tmp_path) for turn in session.turns}
    assert speakers == {"me", person_pseudonym("Thomas")}


def test_a_package_and_an_export_of_part_of_it_are_two_sided_only_there(tmp_path: Path) -> None:
    later = [Line("ann", f"and another thing about lamp number {number}", 1e6 + number * 1e5) for number in range(3)]
    built(
        tmp_path,
        lambda to: talks.discord_package(to, [*TALK, *later]),
        lambda to: talks.discord_json(to, TALK),
    )
    kinds = {session.kind for session in sessions_of(tmp_path)}
    assert kinds == {"dm", "post"}
    assert sum(session.kind == "post" for session in sessions_of(tmp_path)) == 3


def test_replies_to_a_copy_are_replies_to_the_message_that_is_kept(tmp_path: Path) -> None:
    def exporter(to: Path) -> None:
        path = talks.discord_json(to, [*TALK, Line("tom", "i meant the other ficus", 90_000.0)])
        content = json.loads(path.read_text())
        content["messages"][-1] |= {"type": "Reply", "reference": {"messageId": content["messages"][4]["id"]}}
        path.write_text(json.dumps(content))

    built(tmp_path, lambda to: talks.discord_csv(to, TALK), exporter)
    (session,) = sessions_of(tmp_path)  # a late reply joins the session of what it replies to
    assert len([bubble for turn in session.turns for bubble in turn.bubbles]) == 9


def test_an_edited_message_is_one(tmp_path: Path) -> None:
    edited = [
        line._replace(text="the ficus sends all its love") if number == 4 else line for number, line in enumerate(TALK)
    ]
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, TALK),
        lambda to: talks.whatsapp(to, edited, "Tommy"),
    )
    assert (report.kept, report.dropped) == (8, {"duplicate": 8})


def test_two_messages_that_only_stand_in_the_same_place_are_two(tmp_path: Path) -> None:
    other = [line._replace(text="who took my umbrella") if number == 4 else line for number, line in enumerate(TALK)]
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, TALK),
        lambda to: talks.whatsapp(to, other, "Tommy"),
    )
    assert (report.kept, report.dropped) == (9, {"duplicate": 7})


def test_a_friends_file_beside_the_own_one(tmp_path: Path) -> None:
    report = built(
        tmp_path,
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Ann Reed", tom="Thomas B."),
        persona={"name": "sample", "me": ["Ann Reed"]},
    )
    assert said(tmp_path) == WHOLE
    assert report.dropped == {"duplicate": 4}
