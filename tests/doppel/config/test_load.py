"""config.yaml: the shipped files say what the defaults are, and mistakes are named in one line."""

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from doppel.config import Config, Section, load_config, parse_config, parse_duration
from doppel.errors import UserError
from doppel.plugins import installed_platforms

ROOT = Path(__file__).parents[3]
SHIPPED = ("config.yaml", "config.zh-CN.yaml")
A_DEFAULT = re.compile(r"^( +)# (?=[a-z_]+: )", re.MULTILINE)


def keys(section: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key that may be written, as `training.rank`."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        if field.exclude:
            continue
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found |= keys(inner, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    if section is Config:
        found.remove("platforms")
        for name, plugin in installed_platforms().plugins.items():
            found |= keys(plugin.settings, f"{name}.")
    return found


def written(content: dict[str, Any], prefix: str = "") -> set[str]:
    """The keys that a parsed file sets."""
    found: set[str] = set()
    for name, value in content.items():
        found |= written(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
    return found


@pytest.mark.parametrize("name", SHIPPED)
class TestShipped:
    def test_the_shipped_file_has_the_default_values(self, name: str) -> None:
        assert load_config(ROOT / name) == Config(root=ROOT)

    def test_the_shipped_file_mentions_every_key_with_its_default(self, name: str) -> None:
        shown = A_DEFAULT.sub(r"\1", (ROOT / name).read_text(encoding="utf-8").partition("# posts:")[0])
        rest = (ROOT / name).read_text(encoding="utf-8").rpartition("\nposts:")[2]
        content = yaml.safe_load(f"{shown}\nposts:{rest}")
        assert written(content) == keys(Config)
        assert parse_config(content, ROOT / name) == Config(root=ROOT)

    def test_the_shipped_file_does_not_override_tuned_sampling(self, name: str) -> None:
        config = load_config(ROOT / name)
        assert config.reply.model_fields_set == {"history", "debounce_seconds", "max_bubbles"}

    def test_the_examples_of_posts_in_the_shipped_file_are_valid(self, name: str) -> None:
        text = (ROOT / name).read_text(encoding="utf-8")
        example = text[text.index("# posts:") : text.index("\nposts: []")]
        posts = parse_config(yaml.safe_load(re.sub("^# ?", "", example, flags=re.MULTILINE)), ROOT / name).posts
        assert [(post.to.partition(":")[0], post.cron, post.every) for post in posts] == [
            ("telegram", "30 8 * * 1-5", None),
            ("discord", None, "6h"),
        ]


def load(folder: Path, text: str) -> Config:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "config.yaml")


def test_an_empty_file_is_a_complete_configuration(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == Config(root=tmp_path)
    assert config.data_dir == tmp_path / "data" / "sample"
    assert config.adapters_dir == tmp_path / "adapters" / "sample"
    assert config.store_url == f"sqlite:///{tmp_path / 'data' / 'doppel.db'}"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.yaml").write_text("persona: {name: ann}")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("here/config.yaml"))
    assert config.data_dir == tmp_path / "here" / "data" / "ann"


@pytest.mark.parametrize(
    ("text", "url", "max_age"),
    [
        ("store: my.db", "sqlite:///{root}/my.db", None),
        ("store: postgresql://host/doppel", "postgresql://host/doppel", None),
        ("store: {url: my.db, keep: 365d}", "sqlite:///{root}/my.db", timedelta(days=365)),
        ("store: {keep: 0}", "sqlite:///{root}/data/doppel.db", None),
        ("store: {keep: '0'}", "sqlite:///{root}/data/doppel.db", None),
        ("store: {keep: 2d}", "sqlite:///{root}/data/doppel.db", timedelta(days=2)),
    ],
)
def test_the_store_is_named_in_one_line_or_in_a_section(
    tmp_path: Path, text: str, url: str, max_age: timedelta | None
) -> None:
    config = load(tmp_path, text)
    assert config.store_url == url.format(root=tmp_path)
    assert config.store.max_age == max_age


def test_accounts_may_be_written_as_numbers(tmp_path: Path) -> None:
    config = load(tmp_path, "telegram: {allow: [123, '-1001', name]}\npersona: {me: [42]}")
    assert config.platforms["telegram"].allow == ("123", "-1001", "name")
    assert config.persona.me == ("42",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("persona: [", "line 1: not valid YAML"),
        ("a: 1\nb: 2\n  c: 3", "line 3: not valid YAML"),
        ("- a\n- b", "is a list; write `key: value` lines"),
        ("just words", "must consist of `key: value` lines"),
        ("telegramm: {}", "unknown key `telegramm`; did you mean `telegram`?"),
        ("reply: {temprature: 1}", "unknown key `reply.temprature`; did you mean `reply.temperature`?"),
        ("reply: {temperature: hot}", "`reply.temperature`: must be a number, not `hot`"),
        ("reply: {temperature: 9}", "`reply.temperature`: must be at most 5, not `9`"),
        ("training: {rank: 0}", "`training.rank`: must be at least 1, not `0`"),
        ("training: {rank: 1.5}", "`training.rank`: must be a whole number, not `1.5`"),
        ("reply: {guard: perhaps}", "`reply.guard`: must be true or false, not `perhaps`"),
        ("model: {dtype: int4}", "`model.dtype`: must be one of 'auto', 'float32', 'bfloat16', not `int4`"),
        ("exclude: {before: soon}", "`exclude.before`: must be a day like 2020-12-31, not `soon`"),
        ("telegram: {token: '1:a'}", "secrets do not belong in this file; set the environment variable TELEGRAM_TOKEN"),
        ("myspace: {allow: []}", "unknown section `myspace`; installed platforms: discord, telegram, web"),
        ("archive: 5", "`archive`: must be text"),
        ("people: [{nam: Tom, accounts: [a]}]", "`people.0.name`: is missing"),
        ("people: [{name: Tom, accounts: []}]", "`people.0.accounts`: must not be empty"),
        ("web: {port: 70000}", "`web.port`"),
        ("timezone: Berlin", "`timezone`: no such time zone; write it like Europe/Berlin"),
        ("persona: {name: ../up}", "`persona.name`: may have up to 64 letters, digits, - and _, not `../up`"),
        ("root: /tmp", "unknown key `root`"),
        ("store: 2020-99-99", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("archive: []", "`archive`: name at least one path"),
        ("archive: ['']", "`archive`: name at least one path"),
        (
            "posts: [{name: a, to: 'web:1', every: 1h}, {name: a, to: 'web:2', every: 2h}]",
            "`posts`: two posts are named a; each needs its own name",
        ),
        ("posts: [{name: a, to: 'telegram:1'}]", "`posts.0`: give either cron or every"),
        ("posts: [{name: a, to: 'telegram:1', every: 1h, cron: '* * * * *'}]", "give either cron or every"),
        ("posts: [{name: a, to: 'telegram:1', every: soon}]", "`posts.0.every`: write a time like 90s"),
        ("posts: [{name: a, to: 'telegram:1', every: 0.5s}]", "`posts.0.every`: must be at least 1s"),
        ("posts: [{name: a, to: 'telegram:1', every: 1h, jitter_minutes: .inf}]", "`posts.0.jitter_minutes`: must be"),
        ("posts: [{name: a, to: nowhere, every: 1h}]", "`posts.0.to`: must be platform:chat, like telegram:123456"),
        ("model: bundled", "`model`: must be a section of `key: value` lines, not `bundled`"),
        ("telegram: {allow: 5}", "`telegram.allow`: must be a list, like [a, b], not `5`"),
        ("store: [a]", "`store`: must be a section of `key: value` lines"),
        ("store: {keep: 365}", "`store.keep`: write a time like 30d or 365d, or 0 to keep everything"),
        ("store: {keep: 0d}", "`store.keep`: write a time like 30d or 365d, or 0 to keep everything"),
        ("store: {keep: 1d}", "`store.keep`: must be at least 2d"),
        ("store: {kep: 30d}", "unknown key `store.kep`; did you mean `store.keep`?"),
        ("1: 2", "`1`"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    line = str(caught.value)
    assert says in line
    assert str(tmp_path / "config.yaml") in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("language: zh\nreply: {temperature: hot}", "`reply.temperature`：要写数字，不能是 `hot`"),
        ("language: zh\npersona: [", "不是有效的 YAML"),
        ("reply: {temprature: 1}\nlanguage: 'zh'", "是不是想写 `reply.temperature`"),
    ],
)
def test_an_error_is_in_the_language_of_the_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; copy config"):
        load_config(tmp_path / "config.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "config.yaml")


@given(st.text(max_size=60))
def test_any_content_gives_a_config_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with suppress(UserError):
        assert isinstance(load(folder, text), Config)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1.5h", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "s", "5", "0m", "-1h", "1 week", "h1", "1.2.3s", "²s", "9999999999999d"])
def test_other_texts_are_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="write a time like"):
        parse_duration(text)


def test_the_archive_digest_changes_with_what_a_data_set_is_made_from() -> None:
    digests = {
        Config().archive_digest,
        Config(archive="archive").archive_digest,
        Config(archive=("archive", "more")).archive_digest,
        Config(archive="archive", persona={"me": ("1",)}).archive_digest,
        Config(archive=("archive", "1")).archive_digest,
    }
    assert len(digests) == 5
    assert Config(archive=("sample",), training={"rank": 8}).archive_digest == Config().archive_digest
