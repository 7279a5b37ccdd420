"""Secrets are read from the environment or from private files."""

from pathlib import Path

import pytest

from doppel.errors import UserError
from doppel.plugins import installed_platforms, secret_variables
from doppel.secrets import read_secret, resolve_secrets


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(" 123:abc\n")
    path.chmod(0o600)
    return path


def test_the_value_is_stripped() -> None:
    assert read_secret("A_TOKEN", {"A_TOKEN": " 123:abc\n"}) == "123:abc"
    assert read_secret("A_TOKEN", {"A_TOKEN": " "}) == read_secret("A_TOKEN", {}) == ""


def test_a_file_holds_it_as_well(file: Path) -> None:
    assert read_secret("A_TOKEN", {"A_TOKEN_FILE": f" {file} "}) == "123:abc"
    file.chmod(0o400)
    assert read_secret("A_TOKEN", {"A_TOKEN_FILE": str(file), "A_TOKEN": ""}) == "123:abc"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_of_others_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UserError, match=r"^A_TOKEN_FILE: other users can read .*token; run `chmod 600 .*token`$"):
        read_secret("A_TOKEN", {"A_TOKEN_FILE": str(file)})


def test_two_places_are_refused(file: Path) -> None:
    with pytest.raises(UserError, match="A_TOKEN and A_TOKEN_FILE are both set"):
        read_secret("A_TOKEN", {"A_TOKEN_FILE": str(file), "A_TOKEN": "x"})


@pytest.mark.parametrize("content", [b"", b"\n", b"first\nsecond", b"\xff\xfe"])
def test_a_file_with_anything_else_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"must hold the secret alone") as refused:
        read_secret("A_TOKEN", {"A_TOKEN_FILE": str(file)})
    assert "first" not in str(refused.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"^A_TOKEN_FILE: .* cannot be read: "):
            read_secret("A_TOKEN", {"A_TOKEN_FILE": str(path)})


def test_the_environment_that_platforms_get(file: Path, tmp_path: Path) -> None:
    environ = {"A_TOKEN_FILE": str(file), "B_TOKEN": " b ", "C_TOKEN_FILE": str(tmp_path), "HOME": " as it is "}
    resolved, problems = resolve_secrets(environ, ("A_TOKEN", "B_TOKEN", "C_TOKEN", "D_TOKEN"))
    assert resolved == {"A_TOKEN": "123:abc", "B_TOKEN": "b", "HOME": " as it is "}
    assert [problem.partition(":")[0] for problem in problems] == ["C_TOKEN_FILE"]


def test_all_are_listed() -> None:
    listed = secret_variables(installed_platforms().plugins.values())
    assert {"TELEGRAM_TOKEN", "DISCORD_TOKEN", "DOPPEL_WEB_PASSWORD"} <= set(listed)
    assert {"DOPPEL_ENGINE_KEY", "X_BEARER_TOKEN", "HF_TOKEN"} <= set(listed)
