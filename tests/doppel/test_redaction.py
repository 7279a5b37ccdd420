"""No secret is printed or logged, in any form."""

import io
import logging
import sys
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from doppel.redaction import Redactor, redact_stderr, redactor_for

TOKEN = "123456:" + "made-up/and+odd ='quoted\""


@pytest.mark.parametrize(
    "form",
    [
        TOKEN,
        quote(TOKEN),
        quote(TOKEN, safe=""),
        quote(TOKEN, safe="").lower(),
        quote_plus(TOKEN),
        repr(TOKEN),
        repr({"token": TOKEN}),
        TOKEN.replace('"', '\\"'),
    ],
)
def test_every_form_is_removed(form: str) -> None:
    clean = Redactor(f"  {TOKEN}\n", "", "x").redact(f"before {form} after x")
    assert "made-up" not in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after x")


def test_a_longer_secret_that_contains_another_goes_whole() -> None:
    assert Redactor("abcd", "abcd-efgh").redact("abcd-efgh abcd") == "… …"


def test_without_secrets_nothing_changes() -> None:
    assert Redactor("", " ").redact("a b") == "a b"


def test_values_come_from_variables_and_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    (tmp_path / "key").chmod(0o600)
    environ = {"ONE": " from-outside ", "TWO_FILE": str(tmp_path / "key"), "THREE_FILE": str(tmp_path), "FOUR": "four4"}
    redactor = redactor_for(environ, ("ONE", "TWO", "THREE"))
    assert redactor.redact("from-outside from-a-file four4") == "… … four4"


def fail() -> None:
    raise RuntimeError(f"https://example.org/bot{quote(TOKEN)}/x") from ValueError(TOKEN)


def test_what_libraries_print_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    redact_stderr(Redactor("another-secret"))
    redact_stderr(Redactor(TOKEN))  # replaces the one before
    try:
        fail()
    except RuntimeError:
        traceback.print_exc()
    print("another-secret", file=sys.stderr)
    sys.stderr.writelines([f"{TOKEN}\n"])
    printed = stream.getvalue()
    assert "made-up" not in printed
    assert "direct cause" in printed
    assert "another-secret" in printed
    assert not sys.stderr.isatty()


def test_records_without_a_secret_stay_as_they_are() -> None:
    record = logging.LogRecord("name", logging.INFO, "file", 1, "%s apples", (3,), None)
    assert Redactor(TOKEN, "").filter(record)
    assert (record.msg, record.args) == ("%s apples", (3,))
    wrong = logging.LogRecord("name", logging.INFO, "file", 1, "%d apples", ("three",), None)
    assert Redactor(TOKEN).filter(wrong)  # logging itself reports it
