"""The guard finds every run of words that was learned, hardly any other, and keeps no text."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.adapters.guard import FILE, WORDS, Guard, build_guard, read_guard
from doppel.adapters.versions import AdapterRefused
from doppel.transcript import ME, Turn

SALT = bytes(16)
SECRET = "please never tell anybody that the spare key lies under the blue stone"
CHINESE = "备用钥匙放在院子里那块蓝色石头的下面千万别告诉别人"

words = st.lists(st.text("abcdefghijklmnop", min_size=1, max_size=4), min_size=WORDS, max_size=20)
characters = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FEF), min_size=2 * WORDS, max_size=40)


def guard_of(*texts: str) -> Guard:
    return build_guard([[Turn("Ann", (text,))] for text in texts], SALT)


def random_words(random: Random, count: int) -> str:
    return " ".join(str(random.randrange(10**6)) for _ in range(count))


@given(st.lists(words, min_size=1, max_size=20), st.data())
def test_every_run_of_the_archive_is_found(learned: list[list[str]], data: st.DataObject) -> None:
    guard = guard_of(*(" ".join(word_list) for word_list in learned))
    text = data.draw(st.sampled_from(learned))
    start = data.draw(st.integers(0, len(text) - WORDS))
    assert guard.objects(f"well, {' '.join(text[start : start + WORDS]).upper()}!") is not None


@given(characters, st.data())
def test_without_spaces_characters_count(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 2 * WORDS))
    assert guard_of(text).objects("。".join(("嗯", text[start : start + 2 * WORDS], "哈"))) is not None


def test_false_positives_are_rare() -> None:
    random = Random(1)
    guard = guard_of(*(random_words(random, 40) for _ in range(2000)))
    assert len(guard.bits) > 2000 * 33 * 40 // 8
    assert [text for _ in range(10_000) if guard.objects(text := random_words(random, 30))] == []


@pytest.mark.parametrize(
    ("learned", "reply"),
    [
        (SECRET, "that the spare key lies under the"),
        (SECRET, "please never tell anybody that a spare key lies under the blue stone"),
        (CHINESE, CHINESE[: 2 * WORDS - 1]),
        (SECRET, ""),
        (SECRET, "🙂" * 50),
        ("ok", "ok"),
        ("", "anything that has more words than eight, and a few more"),
    ],
)
def test_shorter_or_different_texts_are_allowed(learned: str, reply: str) -> None:
    assert guard_of(learned).objects(reply) is None


@pytest.mark.parametrize(
    ("learned", "reply"),
    [
        (SECRET, "that the spare key lies under the blue"),
        (SECRET, "That the\nspare KEY…\nlies (under) the blue"),
        (CHINESE, CHINESE[3 : 3 + 2 * WORDS]),
        ("ask Tom 他说备用钥匙放在蓝色石头下面", "ASK TOM，他说备用钥匙放在蓝色石头下面"),
        ("don't you dare tell him what we said", "don\u2019t you dare tell him what we said"),
        ("मुझे कल सुबह आठ बजे स्टेशन पर मिलना", "मुझे कल सुबह आठ बजे स्टेशन पर मिलना।"),
    ],
)
def test_case_punctuation_and_bubbles_make_no_difference(learned: str, reply: str) -> None:
    assert guard_of(learned).objects(reply) is not None


def test_vowel_signs_belong_to_their_word() -> None:
    text = "मुझे कल सुबह आठ बजे मिलना"
    assert guard_of(text).objects(text) is None


class TestHabits:
    def test_phrases_that_the_owner_repeats_are_allowed(self) -> None:
        assert build_guard([[Turn(ME, (SECRET,))], [Turn("Ann", ("hm",)), Turn(ME, (SECRET,))]]).objects(SECRET) is None

    def test_phrases_that_the_owner_and_others_repeat_are_allowed(self) -> None:
        sessions = [[Turn(ME, (SECRET,)), Turn("Ann", (SECRET,))], [Turn(ME, (SECRET,))]]
        assert build_guard(sessions).objects(SECRET) is None

    def test_a_repetition_within_one_session_does_not_count(self) -> None:
        assert build_guard([[Turn(ME, (SECRET,)), Turn("Ann", ("hm",)), Turn(ME, (SECRET,))]]).objects(SECRET)

    def test_phrases_that_only_others_repeat_are_blocked(self) -> None:
        assert build_guard([[Turn("Ann", (SECRET,))], [Turn("Tom", (SECRET,))]]).objects(SECRET)

    def test_a_text_that_goes_on_after_a_repeated_phrase_is_blocked(self) -> None:
        sessions = [[Turn(ME, (SECRET,))], [Turn(ME, (f"{SECRET} in the garden",))]]
        assert build_guard(sessions).objects(f"{SECRET} in") is not None

    def test_a_turn_of_several_bubbles_is_one_text(self) -> None:
        assert build_guard([[Turn("Ann", (SECRET[:25], SECRET[25:]))]]).objects(SECRET) is not None


class TestFile:
    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        guard_of(SECRET).write(tmp_path)
        guard = read_guard(tmp_path)
        assert guard is not None
        assert guard.objects(SECRET) is not None
        assert guard.objects("that the spare key is in the red box") is None

    def test_the_file_holds_no_text_and_a_new_salt(self, tmp_path: Path) -> None:
        files = []
        for _ in range(2):
            build_guard([[Turn("Ann", (SECRET,))]]).write(tmp_path)
            files.append((tmp_path / FILE).read_bytes())
        assert files[0] != files[1]
        assert all(word.encode() not in file for file in files for word in SECRET.split() if len(word) > 4)

    def test_without_a_file_there_is_no_guard(self, tmp_path: Path) -> None:
        assert read_guard(tmp_path) is None

    def test_a_guard_of_no_sessions_allows_everything(self, tmp_path: Path) -> None:
        build_guard([]).write(tmp_path)
        guard = read_guard(tmp_path)
        assert guard is not None
        assert guard.objects(SECRET) is None

    @given(st.data())
    def test_a_damaged_file_is_refused(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        folder = tmp_path_factory.mktemp("guard")
        guard_of(SECRET).write(folder)
        whole = bytearray((folder / FILE).read_bytes())
        place = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            whole[place] ^= data.draw(st.integers(1, 255))
        else:
            del whole[place:]
        (folder / FILE).write_bytes(whole)
        with pytest.raises(AdapterRefused, match=r"guard\.bin cannot be read"):
            read_guard(folder)


@given(st.text(), st.text())
def test_any_text_is_accepted(learned: str, reply: str) -> None:
    assert guard_of(learned).objects(reply) in (None, guard_of(SECRET).objects(SECRET))
