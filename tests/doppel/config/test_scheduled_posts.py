"""A post must have a schedule that can fire, and go to a platform that is installed and on."""

from pathlib import Path
from typing import Any

import pytest

from doppel.config import parse_config
from doppel.config.scheduled_posts import check_scheduled_posts
from doppel.errors import UserError
from doppel.plugins import InstalledPlatforms, PlatformPlugin, PlatformSettings, Section

PATH = Path("my/settings.yaml")
INSTALLED = InstalledPlatforms(
    {
        "web": PlatformPlugin(name="web", settings=Section, open=lambda *_: None, is_public=True),
        "telegram": PlatformPlugin(
            name="telegram", settings=PlatformSettings, open=lambda *_: None, secrets=("TELEGRAM_TOKEN",)
        ),
    },
    {"matrix": "No module named 'nio'"},
)


def check(to: str, environ: dict[str, str] | None = None, **when: Any) -> None:
    config = parse_config({"posts": [{"name": "daily", "to": to, **(when or {"every": "6h"})}]}, PATH)
    check_scheduled_posts(config, PATH, environ or {}, INSTALLED)


def test_a_post_to_an_enabled_platform_is_accepted() -> None:
    check("web:posts")
    check("telegram:1", {"TELEGRAM_TOKEN": "1:a"})
    check("web:posts", cron="30 8 * * 1-5")


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 8 * *", "five fields are needed: minute hour day month weekday"),
        (
            "0 25 * * *",
            "`25` is not a valid hour: write 0-23, a range 1-5, a step */5 or a list 1,5",
        ),
        ("0 0 30 2 *", "no day ever matches `0 0 30 2 *`; correct its day or month"),
    ],
)
def test_cron_that_cannot_fire_is_refused_with_the_name_of_the_file(cron: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        check("web:posts", cron=cron)
    assert str(caught.value) == f"{PATH}: post `daily`: cron: {says}"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("telegram:1", "post `daily` goes to telegram, which is off: telegram is off: no token; set TELEGRAM_TOKEN"),
        ("myspace:1", "post `daily`: unknown platform `myspace`; available: telegram, web"),
        ("matrix:1", "post `daily` goes to matrix, which is off: No module named 'nio'"),
    ],
)
def test_a_post_to_any_other_platform_is_refused_with_the_name_of_the_file(to: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        check(to)
    assert str(caught.value) == f"{PATH}: {says}"
