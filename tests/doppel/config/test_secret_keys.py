"""Secrets in config.yaml are refused before anything else, and never shown."""

from pathlib import Path

import pytest

from doppel.config import load_config
from doppel.errors import UserError

TELEGRAM = "123456789:" + "AAH" + "x" * 32
DISCORD = "M" + "T" * 25 + ".Gabcde." + "y" * 38


@pytest.mark.parametrize(
    ("content", "key", "variable"),
    [
        ("telegram: {token: canary}", "telegram.token", "TELEGRAM_TOKEN"),
        ("telegram: {botToken: canary}", "telegram.botToken", "TELEGRAM_TOKEN"),
        ("discord: {api-key: canary}", "discord.api-key", "DISCORD_TOKEN"),
        ("engine: {api_key: canary}", "engine.api_key", "DOPPEL_ENGINE_KEY"),
        ("engine: {key: [canary]}", "engine.key", "DOPPEL_ENGINE_KEY"),
        ("web: {password: canary}", "web.password", "DOPPEL_WEB_PASSWORD"),
        ("web: {auth: [{Password: canary}]}", "web.auth.0.Password", "DOPPEL_WEB_PASSWORD"),
        ("X_BEARER_TOKEN: canary", "X_BEARER_TOKEN", "X_BEARER_TOKEN"),
        ("training: {hf_token: canary}", "training.hf_token", "HF_TOKEN"),
        (f"telegram: {TELEGRAM}", "telegram", "TELEGRAM_TOKEN"),
        (f"telegram: {{api: 'https://api.telegram.org/bot {TELEGRAM}'}}", "telegram.api", "TELEGRAM_TOKEN"),
        (f"telegram: {{allow: ['{TELEGRAM}']}}", "telegram.allow.0", "TELEGRAM_TOKEN"),
        (f"telegram: {{'{TELEGRAM}': 1}}", "telegram.…", "TELEGRAM_TOKEN"),
        (f"persona: {{name: {DISCORD}}}", "persona.name", "DISCORD_TOKEN"),
        (f"nonsense: {{more: {DISCORD}}}", "nonsense.more", "DISCORD_TOKEN"),
        (f"model: {{base: hf_{'a' * 34}}}", "model.base", "HF_TOKEN"),
    ],
)
def test_the_line_says_where_it_belongs(tmp_path: Path, content: str, key: str, variable: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"unknown: 1\n{content}\n")
    with pytest.raises(UserError) as refused:
        load_config(path)
    assert str(refused.value) == (
        f"{path}: `{key}`: secrets do not belong in this file; set the environment variable {variable}, "
        f"or {variable}_FILE to the path of a file"
    )


@pytest.mark.parametrize("content", ["secret: canary", "training: {wandb: {api_key: canary}}", "people: [{token: x}]"])
def test_one_of_no_known_service_is_refused_as_well(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(
        UserError, match="secrets do not belong in this file; they come from the environment"
    ) as refused:
        load_config(path)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "privacy: {kinds: [token, password]}",
        "reply: {max_tokens: 20}",
        "exclude: {words: [password, secret]}",
        "reply: {logit_bias: [{word: token, bias: 1}]}",
        "telegram: {allow: [-1001234567890, '123456789']}",
        "posts: [{name: key, to: 'telegram:-1001234567890', every: 6h}]",
        "archive: C:/Users/someone/exports/2024-01-01.some-long-name-of-an-export.with.dots.json",
    ],
)
def test_ordinary_settings_are_no_secrets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    load_config(path)
