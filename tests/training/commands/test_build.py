"""`doppel build` as a user runs it: what it prints, the exit codes, and what it leaves behind."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from doppel.cli.app import as_command
from tests.training.dataset.test_parent_fetcher import FakeX
from tests.training.exports import (
    telegram_account,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
    write_folder,
    write_json,
    write_zip,
)
from training.commands.build import build


def run(root: Path, *options: str, config: str = "archive: archive\n") -> Result:
    """`doppel build` in a folder. The real command line, with this one command."""
    (root / "config.yaml").write_text(config, encoding="utf-8")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("build")(as_command(build))
    return CliRunner().invoke(app, ["--config", str(root / "config.yaml"), *options], catch_exceptions=False)


def account(messages: int = 6, **more: Any) -> Any:
    rows = [telegram_message(n, 1001 if n % 2 else 2002, f"message {n}", at=n * 4000) for n in range(1, messages + 1)]
    return telegram_account(telegram_chat([*rows, telegram_message(99, 1001, "x", at=10**6, **more)]))


def test_tables_examples_and_what_comes_next(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "result.json", account(forwarded_from="Ana"))
    write_zip(tmp_path / "archive" / "t.zip", twitter_files(tweets=[tweet(1, "good [bold]morning[/bold]")]))
    result = run(tmp_path)
    assert result.exit_code == 0
    assert result.stdout == ""
    for part in ("telegram", "twitter", "Tom", "forwarded 1", "conversation", "An example, as the model sees it"):
        assert part in result.stderr
    assert "Your messages: 4 of 5 kept" in result.stderr
    assert re.search(
        r"median \d+, 95 % at most \d+, longest \d+\. max_length in training is [\d,]+ \(.*\); [\d.]+% of the sessions",
        result.stderr,
    )
    assert "me: good [bold]morning[/bold]" in result.stderr
    assert result.stderr.rstrip().endswith("Next: `doppel train`")


def test_in_chinese(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "result.json", account())
    result = run(tmp_path, config="archive: archive\nlanguage: zh\n")
    assert result.exit_code == 0
    for part in ("未收录的消息", "没有你的对话", "你的消息：共 4 条", "下一步：`doppel train`"):
        assert part in result.stderr


def test_json_is_one_object_on_stdout(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "result.json", account(photo="(File not included.)"))
    write_folder(tmp_path / "archive", {"odd.bin": "x", "photos/a.jpg": "x"})
    result = run(tmp_path, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["read"] == 7 == report["kept"] + sum(report["dropped"].values())
    assert report["bad"] == 0
    assert report["sources"]["telegram"]["chats"] == 1
    assert set(report["sessions"]) == {"train", "validation", "test"}
    assert report["owner"]["accounts"] == ["telegram: Mara Lind"]
    lengths = report["lengths"]
    assert 0 < lengths["half"] <= lengths["most"] <= lengths["longest"]
    assert lengths["fitting"] == 1
    assert json.loads((tmp_path / "data" / "sample" / "report.json").read_bytes())["lengths"] == lengths
    assert report["data"] == str(tmp_path / "data" / "sample")
    assert report["unknown"] == [str(tmp_path / "archive" / "odd.bin")]
    assert (report["unknown_count"], report["beside"]) == (1, 1)
    assert f"unknown format, not read: 1 ({tmp_path / 'archive' / 'odd.bin'})" in result.stderr
    assert "other attachments, not read: 1" in result.stderr


def test_many_archives_of_one_format_are_one_row(tmp_path: Path) -> None:
    for number in range(7):
        lines = f"13/03/2021, 21:00 - Friend {number}: hi there\n13/03/2021, 21:01 - Mara: hello\n"
        write_folder(tmp_path / "archive", {f"WhatsApp Chat with Friend {number}.txt": lines})
    result = run(tmp_path, config="archive: archive\npersona: {me: [Mara]}\nmodel: {device: cpu}\n")
    assert result.exit_code == 0
    rows = [" ".join(line.split()) for line in result.stderr.splitlines() if "whatsapp" in line]
    assert len([row for row in rows if "whatsapp, 7 archives" in row and "14" in row]) == 1
    assert "whatsapp 2" not in result.stderr
    report = json.loads((tmp_path / "data" / "sample" / "report.json").read_bytes())
    assert list(report["sources"])[-1] == "whatsapp 7"


def test_a_chat_in_which_you_only_read_stops_nothing(tmp_path: Path) -> None:
    chats = {"WhatsApp Chat with Ana.txt": ("Ana", "Mara", "Tom"), "WhatsApp Chat with News.txt": ("Kim", "Tom", "Ana")}
    for name, people in chats.items():
        lines = "".join(f"13/03/2021, 21:0{n} - {person}: hi there\n" for n, person in enumerate(people))
        write_folder(tmp_path / "archive", {name: lines})
    result = run(tmp_path, "--json", config="archive: archive\npersona: {me: [Mara]}\nmodel: {device: cpu}\n")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["absent"] == 1
    assert "Archives without messages of yours: 1. " in result.stderr
    assert "with News.txt (Ana, Kim, Tom)" in result.stderr


def test_bad_records_are_one_line(tmp_path: Path) -> None:
    content = account()
    content["chats"]["list"][0]["messages"].insert(0, {"type": "message"})
    write_json(tmp_path / "archive" / "result.json", content)
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "Unreadable records, left out: 1. First: " in result.stderr
    assert f"{tmp_path}/archive/result.json, Tom, message 1: missing 'id'" in result.stderr


def test_the_page_lies_in_the_data_set(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "result.json", account())
    result = run(tmp_path, config="archive: archive\nlanguage: zh\nmodel: {device: cpu}\n")
    assert result.exit_code == 0
    page = tmp_path / "data" / "sample" / "report.html"
    assert str(page) in result.stderr
    text = page.read_text(encoding="utf-8")
    assert '<html lang="zh">' in text
    assert "message 1" in text
    assert "间隔多久算会话结束" in text
    assert "<dd>60 分钟</dd>" in text  # the silence that ends a session in a small chat


@pytest.mark.parametrize("form", ["alpaca", "sharegpt", "openai", "transcript"])
def test_export_builds_first_and_then_only_writes(tmp_path: Path, form: str) -> None:
    write_json(tmp_path / "archive" / "result.json", account())
    target = tmp_path / "out" / "mine.jsonl"
    result = run(tmp_path, "--export", form, str(target), "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    lines = target.read_text(encoding="utf-8").splitlines()
    assert printed == {
        "path": str(target),
        "format": form,
        "records": len(lines),
        "categories": {"dialogue": len(lines)},
    }
    assert len(lines) > 0
    assert "Splitting chats into sessions" in result.stderr
    again = run(tmp_path, "--export", form, str(target))
    assert again.exit_code == 0
    assert again.stdout == ""
    assert f"mine.jsonl: {len(lines)} records (dialogue {len(lines)})" in again.stderr
    assert "Splitting chats into sessions" not in again.stderr


def test_export_says_what_is_wrong_before_it_builds(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "result.json", account())
    result = run(tmp_path, "--export", "csv", str(tmp_path / "x.csv"))
    assert result.exit_code == 2
    assert "--export csv: unknown format; available: alpaca, sharegpt, openai, transcript" in result.stderr
    assert run(tmp_path, "--export", "openai", str(tmp_path)).exit_code == 2
    assert not (tmp_path / "data").exists()


def test_export_of_a_data_set_made_from_other_archives(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "result.json", account())
    assert run(tmp_path).exit_code == 0
    result = run(tmp_path, "--export", "openai", str(tmp_path / "x.jsonl"), config="archive: elsewhere\n")
    assert result.exit_code == 2
    assert "built from other archives than config.yaml names now" in result.stderr
    assert not (tmp_path / "x.jsonl").exists()


def test_formats_are_listed_whatever_the_configuration(tmp_path: Path) -> None:
    result = run(tmp_path, "--list-formats", "--json", config="archive: [nowhere\n")
    assert result.exit_code == 0
    formats = {format_["name"]: format_["accepts"] for format_ in json.loads(result.stdout)["formats"]}
    assert formats["twitter"] == "Twitter / X archive (zip or folder)"
    assert "sample" not in formats
    shown = run(tmp_path, "--list-formats", config="language: zh\n")
    assert shown.stdout == ""
    assert "Twitter / X 存档（zip 或文件夹）" in shown.stderr
    assert not (tmp_path / "data").exists()


def broken_zip(root: Path) -> None:
    path = write_zip(root / "archive" / "t.zip", twitter_files(tweets=[tweet(1, "a")]))
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda root: None, "archive: no such file or folder; set `archive` in config.yaml"),
        (lambda root: (root / "archive").mkdir(), "archive: no messages found; `doppel build --list-formats`"),
        (
            lambda root: write_zip(root / "archive" / "a.zip", {}),
            "archive/a.zip: unknown archive format; `doppel build --list-formats`",
        ),
        (broken_zip, "archive/t.zip: damaged or incomplete zip; download it again"),
        (lambda root: write_folder(root / "archive", {"diary.txt": "x"}), "archive/diary.txt: unknown archive format"),
        (
            lambda root: write_json(
                root / "archive" / "result.json",
                telegram_chat([telegram_message(1, 3003, "hi")], id=7, type="private_group"),
            ),
            "archive/result.json: does not say which messages are yours. Set `persona.me` in config.yaml",
        ),
        (
            lambda root: write_json(root / "archive" / "result.json", telegram_chat([])),
            "archive/result.json: contains no messages",
        ),
        (
            lambda root: write_folder(root / "archive", {"data/tweets.js": "window.YTD.tweets.part0 = [ {"}),
            "archive/data/tweets.js, record 1: ends unexpectedly; no message could be read",
        ),
        (
            lambda root: write_json(
                root / "archive" / "result.json",
                telegram_account(telegram_chat([telegram_message(1, 1001, "x", forwarded_from="Ana")])),
            ),
            "no messages of yours are left to learn from; dropped: forwarded 1",
        ),
    ],
    ids=[
        "missing",
        "empty folder",
        "empty zip",
        "broken zip",
        "unknown",
        "no owner",
        "no messages",
        "cut short",
        "none kept",
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(tmp_path: Path, prepare: Any, expected: str) -> None:
    prepare(tmp_path)
    result = run(tmp_path, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("doppel: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


def test_the_sample_on_the_command_line(tmp_path: Path) -> None:
    result = run(tmp_path, "--json", config="")
    report = json.loads(result.stdout)
    assert report["owner"]["read"] == 25_272
    assert report["read"] == report["kept"] + sum(report["dropped"].values())


def test_who_may_be_the_owner_is_listed_over_all_archives(tmp_path: Path) -> None:
    for number, (people, name) in enumerate((((1001, 2002, 2002), "One"), ((1001, 3003), "Two"))):
        rows = [telegram_message(n, person, "hi") for n, person in enumerate(people, 1)]
        chat = telegram_chat(rows, id=7 + number, type="private_group", name=name)
        write_json(tmp_path / "archive" / str(number) / "result.json", chat)
    result = run(tmp_path)
    assert result.exit_code == 2
    assert result.stdout == ""
    listed = [line.split("│")[1:-1] for line in result.stderr.splitlines() if "│" in line and "telegram" in line]
    assert [[cell.strip() for cell in row] for row in listed] == [
        ["Mara Lind", "1001", "telegram", "2", "2"],
        ["Tom Berg", "2002", "telegram", "1", "2"],
        ["User 3003", "3003", "telegram", "1", "1"],
    ]
    assert '`persona: {me: ["Mara Lind"]}`' in result.stderr
    assert run(tmp_path, config='archive: archive\npersona: {me: ["Mara Lind"]}\n').exit_code == 0


def test_of_many_who_may_be_the_owner_the_likeliest_are_listed(tmp_path: Path) -> None:
    rows = [telegram_message(n, 3000 + n % 20, "hi") for n in range(1, 100)]
    write_json(tmp_path / "archive" / "result.json", telegram_chat(rows, id=7, type="private_group"))
    result = run(tmp_path)
    assert result.exit_code == 2
    assert sum("│ telegram │" in line for line in result.stderr.splitlines()) == 12
    assert "and 8 more, in fewer chats or with fewer messages" in result.stderr


def test_parents_are_fetched_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "archive" / "x", twitter_files(tweets=[tweet(1, "yes", in_reply_to_status_id_str="7")]))
    monkeypatch.delenv("X_BEARER_TOKEN", raising=False)
    assert run(tmp_path).exit_code == 0
    result = run(tmp_path, "--fetch-parents")
    assert result.exit_code == 2
    assert "X_BEARER_TOKEN" in result.stderr
    fake = FakeX()
    fake.posts["7"] = {"text": "tea?"}
    try:
        monkeypatch.setenv("X_BEARER_TOKEN", "made-up")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("training.dataset.x_api.API_URL", fake.url)
        result = run(tmp_path, "--fetch-parents", "--json")
        exported = run(tmp_path, "--fetch-parents", "--export", "openai", str(tmp_path / "out.jsonl"))
    finally:
        fake.close()
    assert result.exit_code == exported.exit_code == 0
    assert json.loads(result.stdout)["parents"] == {"asked": 1, "found": 1, "gone": 0}
    assert "Fetched from X: 1 of 1 posts" in result.stderr
    assert "tea?" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert len(fake.requests) == 1
