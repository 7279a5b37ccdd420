"""Installed platforms: what is loaded, what is refused, and what they say of themselves."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from doppel import plugins
from doppel.config import parse_config
from doppel.errors import UserError
from doppel.plugins import Check, PlatformPlugin, PlatformSettings, Section, installed_platforms, page_url


class Needy(PlatformSettings):
    server: str


def fake(**content: object) -> PlatformPlugin[PlatformSettings]:
    return PlatformPlugin(**{"name": "pigeon", "settings": PlatformSettings, "open": lambda *_: None, **content})  # type: ignore[arg-type]


PIGEON = fake()
RAVEN = fake()
CLOSED = fake(settings=Section)
NEEDY = fake(settings=Needy)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def points(group: str) -> list[EntryPoint]:
        values = {
            "pigeon": f"{__name__}:PIGEON",
            "raven": f"{__name__}:RAVEN",
            "closed": f"{__name__}:CLOSED",
            "needy": f"{__name__}:NEEDY",
            "check": f"{__name__}:fake",
            "gone": "no_such_module:PLUGIN",
        }
        return [EntryPoint(name, value, group) for name, value in values.items()]

    monkeypatch.setattr(plugins, "entry_points", points)
    installed_platforms.cache_clear()
    yield
    installed_platforms.cache_clear()


@pytest.mark.usefixtures("install")
def test_a_platform_that_cannot_be_loaded_does_not_affect_others() -> None:
    installed = installed_platforms()
    assert dict(installed.plugins) == {"pigeon": PIGEON}
    assert "named like its entry point" in installed.failures["raven"]
    assert set(installed.failures) == {"raven", "closed", "needy", "check", "gone"}
    assert "no_such_module" in installed.failures["gone"]
    assert "not a PlatformPlugin" in installed.failures["check"]


@pytest.mark.usefixtures("install")
def test_the_section_of_a_platform_that_cannot_be_loaded_is_not_checked() -> None:
    config = parse_config({"pigeon": {"allow": [1]}, "gone": {"anything": 1}}, Path("config.yaml"))
    assert set(config.platforms) == {"pigeon"}
    assert page_url(config.platforms) is None
    with pytest.raises(UserError, match="telegram"):
        parse_config({"telegram": {}}, Path("config.yaml"))


def test_a_missing_secret_and_an_empty_allow_list_are_reported() -> None:
    plugin = fake(secrets=("PIGEON_KEY",), checks=lambda *_: [Check(name="loft", ok=True, hint="clean")])
    checks = plugin.examine(PlatformSettings(), {"PIGEON_KEY": " "})
    assert [(check.name, check.ok) for check in checks] == [("pigeon", False), ("loft", True)]
    assert checks[0].hint == "pigeon is off: no token; set PIGEON_KEY"
    empty = plugin.examine(PlatformSettings(), {"PIGEON_KEY": "x"})[0]
    assert (empty.ok, empty.hint.partition(",")[0]) == (False, "pigeon.allow is empty")
    assert plugin.examine(PlatformSettings(allow=("1",)), {"PIGEON_KEY": "x"})[0].ok
    off = plugin.examine(PlatformSettings(enabled=False), {})[0]
    assert (off.ok, off.hint) == (True, "pigeon is off: pigeon.enabled is false")
