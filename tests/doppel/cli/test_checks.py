"""What `doppel doctor` finds, and whether it says what to do."""

import json
import re
import shutil
from pathlib import Path

import pytest

from doppel.cli.checks import examine
from doppel.config import Config, load_config
from doppel.config.dataset_digest import dataset_archive_digest
from doppel.plugins import Check
from tests.conftest import PublishAdapter
from tests.doppel.transcript.chat_templates import GEMMA

ALL = [
    *("python", "memory", "disk", "config", "time zone", "archive", "data", "device", "base model", "larger base"),
    *("engine", "transcript", "adapter", "page", "discord", "telegram", "posts"),
]


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    write(tmp_path, f"model: {{base: {tiny_base}, dtype: float32}}\nweb: {{port: 0}}\ntimezone: Europe/Berlin")
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def add(folder: Path, text: str) -> Config:
    write(folder, f"{(folder / 'config.yaml').read_text()}\n{text}")
    return load_config(folder / "config.yaml")


def look(folder: Path, **environ: str) -> dict[str, Check]:
    return {check.name: check for check in examine(folder / "config.yaml", environ)}


def build(config: Config, archive_digest: str | None = None) -> None:
    config.data_dir.mkdir(parents=True)
    report = {"archive_digest": archive_digest or config.archive_digest}
    (config.data_dir / "report.json").write_text(json.dumps(report))


def needed(checks: dict[str, Check]) -> list[str]:
    return [check.name for check in checks.values() if not check.ok and check.level == "needed"]


def test_a_secret_that_others_can_read_is_found(folder: Path) -> None:
    file = folder / "token"
    file.write_text("123:abc")
    file.chmod(0o644)
    checks = look(folder, TELEGRAM_TOKEN_FILE=str(file))
    assert needed(checks) == ["secrets"]
    assert "other users can read" in checks["secrets"].hint
    assert "no token" in checks["telegram"].hint
    file.chmod(0o600)
    checks = look(folder, TELEGRAM_TOKEN_FILE=str(file))
    assert list(checks) == ALL
    assert "telegram.allow is empty" in checks["telegram"].hint


def test_a_page_that_others_could_use_is_found(folder: Path) -> None:
    write(folder, "web: {host: 0.0.0.0, port: 0}")
    assert "set a password in DOPPEL_WEB_PASSWORD" in look(folder)["page"].hint
    assert look(folder, DOPPEL_WEB_PASSWORD="open sesame")["page"].ok


def test_on_a_fresh_machine_every_needed_check_passes(folder: Path) -> None:
    checks = look(folder)
    assert list(checks) == ALL
    assert needed(checks) == []
    assert not checks["data"].ok
    assert "doppel build" in checks["data"].hint
    assert not checks["adapter"].ok
    assert "doppel train" in checks["adapter"].hint
    assert checks["time zone"].hint == "Europe/Berlin"
    assert checks["device"].hint.endswith(", float32")
    assert all(check.hint and "\n" not in check.hint for check in checks.values())


def test_with_everything_in_place_all_checks_pass(folder: Path, publish_tiny_adapter: PublishAdapter) -> None:
    config = add(folder, "telegram: {allow: [1, 2]}\ndiscord: {enabled: false}")
    build(config)
    publish_tiny_adapter(config.adapters_dir)
    checks = look(folder, TELEGRAM_TOKEN="1:a")
    assert [check.name for check in checks.values() if not check.ok] == []
    assert checks["telegram"].hint == "ready, 2 allowed"


def test_a_broken_config_is_one_failed_check(folder: Path) -> None:
    write(folder, "telegramm: {}")
    checks = look(folder)
    assert list(checks) == ["python", "memory", "config"]
    assert "unknown key `telegramm`" in checks["config"].hint
    assert needed(checks) == ["config"]


def test_a_missing_archive_is_needed_until_the_data_set_is_built(folder: Path) -> None:
    config = add(folder, "archive: [sample, my/export.zip]")
    checks = look(folder)
    assert needed(checks) == ["archive"]
    assert "my/export.zip: no such file" in checks["archive"].hint
    build(config)
    checks = look(folder)
    assert needed(checks) == []
    assert not checks["archive"].ok
    (folder / "my").mkdir()
    (folder / "my" / "export.zip").touch()
    assert look(folder)["archive"].ok


def test_a_data_set_from_other_archives_is_noticed(folder: Path) -> None:
    build(load_config(folder / "config.yaml"), "another")
    check = look(folder)["data"]
    assert not check.ok
    assert "other archives" in check.hint


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', "\x00"])
def test_a_damaged_report_counts_as_no_data_set(folder: Path, content: str) -> None:
    config = load_config(folder / "config.yaml")
    config.data_dir.mkdir(parents=True)
    (config.data_dir / "report.json").write_text(content)
    assert dataset_archive_digest(config) is None


def test_a_damaged_adapter_or_one_of_another_base_fails(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, publish_tiny_adapter: PublishAdapter
) -> None:
    config = load_config(folder / "config.yaml")
    published = publish_tiny_adapter(config.adapters_dir)
    (published / "habits.json").write_text("{ }")
    check = look(folder)["adapter"]
    assert (check.ok, check.level) == (False, "needed")
    assert "habits.json is damaged" in check.hint
    assert "doppel adapters rollback" in check.hint
    from tests.tiny import build_base

    publish_tiny_adapter(config.adapters_dir)
    other = build_base(tmp_path_factory.mktemp("other") / "base", seed=1)
    write(folder, f"model: {{base: {other}}}\nweb: {{port: 0}}")
    assert "trained on another base model" in look(folder)["adapter"].hint


@pytest.mark.parametrize(
    ("base", "level", "says"),
    [
        ("bundled", "optional", "converted at the first `doppel up`"),
        ("someone/some-model", "optional", "fetched from the Hugging Face hub"),
        ("empty", "needed", "has no config.json with safetensors"),
    ],
)
def test_a_base_model_that_is_not_prepared_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, base: str, level: str, says: str
) -> None:
    monkeypatch.setenv("DOPPEL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    write(folder, f"model: {{base: {base}}}")
    check = look(folder)["base model"]
    assert (check.ok, check.level) == (False, level)
    assert says in check.hint


def test_a_device_that_is_not_there_is_named(folder: Path, tiny_base: Path) -> None:
    write(folder, f"model: {{base: {tiny_base}, device: 'quantum:0'}}\nweb: {{port: 0}}")
    check = look(folder)["device"]
    assert (check.ok, check.level) == (False, "needed")
    assert "model.device: `quantum:0`" in check.hint


def test_platforms_say_what_is_missing(folder: Path) -> None:
    checks = look(folder, DISCORD_TOKEN="secret-token")
    assert "set TELEGRAM_TOKEN" in checks["telegram"].hint
    assert "discord.allow is empty" in checks["discord"].hint
    assert "secret-token" not in str(checks)
    assert {checks["telegram"].level, checks["discord"].level} == {"optional"}


def test_a_post_to_an_unknown_platform_fails(folder: Path) -> None:
    add(folder, "posts: [{name: daily, to: 'fax:1', every: 6h}]")
    check = look(folder)["posts"]
    assert (check.ok, check.level) == (False, "needed")
    assert (
        f"{folder / 'config.yaml'}: post `daily`: unknown platform `fax`; available: discord, telegram, web"
        in check.hint
    )


def test_an_invalid_cron_is_found_before_run_refuses_it(folder: Path) -> None:
    add(folder, "posts: [{name: daily, to: 'web:1', cron: '0 25 * * *'}]")
    check = look(folder)["posts"]
    assert (check.ok, check.level) == (False, "needed")
    assert f"{folder / 'config.yaml'}: post `daily`: cron: `25` is not a valid hour" in check.hint


@pytest.mark.parametrize(
    ("name", "template", "kind", "ok", "hint"),
    [
        ("Tiny-Base", None, "base", True, "base"),
        ("Tiny-Base", GEMMA, "base", True, "base"),
        ("Tiny", GEMMA, "base", True, "if .* is an instruct model"),
        ("Tiny-Instruct", GEMMA, "base", False, "sounds like an instruct model; set `transcript: chat`"),
        ("tiny-it", GEMMA, "chat", True, "chat"),
        ("tiny-pt", GEMMA, "chat", False, "sounds like a pretrained model"),
        ("tiny-it", None, "chat", False, "this model has no chat template, which transcript: chat needs"),
        ("tiny-it", "{{ messages | nothing }}", "chat", False, "reorders or changes messages"),
    ],
)
def test_the_transcript_suits_the_base(
    tmp_path: Path, tiny_base: Path, name: str, template: str | None, kind: str, ok: bool, hint: str
) -> None:
    base = tmp_path / name
    shutil.copytree(tiny_base, base)
    if template is not None:
        (base / "chat_template.jinja").write_text(template)
    write(tmp_path, f"model: {{base: {base}, dtype: float32}}\nweb: {{port: 0}}\ntranscript: {kind}")
    check = look(tmp_path)["transcript"]
    assert check.ok == ok
    assert re.search(hint, check.hint)
    assert (check.level == "needed") == ("use transcript: base" in check.hint)
