"""Keys under their former names, and what was stored while they had them."""

from pathlib import Path
from typing import Any

import pytest

from doppel.config import Config, parse_config
from doppel.config.renamed_keys import RENAMED_KEYS
from doppel.errors import UserError
from doppel.i18n import set_language

PATH = Path("config.yaml")
VALUES: dict[str, Any] = {
    "cleaning.repeats": 0.02,
    "cleaning.contact_share": 0.25,
    "engine.model": "base",
    "engine.adapters_there": "/srv/adapters",
    "engine.at_once": 3,
    "engine.waiting": 4,
    "engine.context": 300,
    "engine.memory_gb": 0.25,
    "training.track": ["wandb"],
}
EVERYTHING: dict[str, Any] = {
    "archive": ["a.zip", "b"],
    "persona": {"me": ["1", "ann"]},
    "privacy": {"names": True, "kinds": ["email"]},
    "exclude": {"people": ["x"], "words": ["w"], "before": "2020-12-31"},
    "people": [{"name": "Tom", "accounts": ["telegram:1"]}],
}


def test_every_old_name_is_tested() -> None:
    assert VALUES.keys() == {f"{section}.{old}" for section, names in RENAMED_KEYS.items() for old in names}


@pytest.mark.parametrize("old", VALUES)
def test_an_old_key_is_read_and_a_line_names_the_new_one(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    section, _, key = old.partition(".")
    new = RENAMED_KEYS[section][key]
    assert parse_config({section: {key: VALUES[old]}}, PATH) == parse_config({section: {new: VALUES[old]}}, PATH)
    assert capsys.readouterr().err == f"config.yaml: `{old}` is now called `{section}.{new}`; please rename it\n"


def test_the_line_is_in_the_users_language(capsys: pytest.CaptureFixture[str]) -> None:
    set_language("zh")
    parse_config({"engine": {"at_once": 3}}, PATH)
    assert capsys.readouterr().err == "config.yaml：`engine.at_once` 已改名为 `engine.max_concurrent`，请改用新名\n"


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"`engine\.waiting` is the old name of `engine\.max_queue`; remove it"):
        parse_config({"engine": {"waiting": 1, "max_queue": 2}}, PATH)


def test_a_wrong_value_is_named_by_the_new_name() -> None:
    with pytest.raises(UserError, match=r"`engine\.max_concurrent`"):
        parse_config({"engine": {"at_once": 0}}, PATH)


def test_a_data_set_built_before_the_renaming_is_still_the_one_of_these_archives() -> None:
    """The digests were computed by the version that had the old names."""
    assert Config().archive_digest == "977a0356f3636a4b"
    old = {"near_duplicates": False, "repeats": 0.02, "contact_share": 0.25}
    assert parse_config({**EVERYTHING, "cleaning": old}, PATH).archive_digest == "a08a5615537d29a1"


def test_a_training_interrupted_before_the_renaming_can_go_on() -> None:
    """Its purpose is a digest of this text, which the version with the old names wrote."""
    written = Config().training.model_dump_json(exclude={"trackers", "gate"})
    assert written == (
        '{"rank":null,"alpha":null,"learning_rate":null,"epochs":null,"sessions_per_step":null,"max_length":null,'
        '"minutes":null,"first_run_minutes":4.0,"patience":3,"seed":0,"quantize":null,"split":null,"mix":[],"replay":0.0}'
    )
    assert Config().model.model_dump_json() == '{"base":"bundled","dtype":"auto","device":"auto"}'
