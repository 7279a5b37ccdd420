"""What a chat platform brings to doppel: its settings, the names of its secrets, its checks, and how it is opened.

A platform is installed by an entry point in the group `doppel.platforms` that names a `PlatformPlugin`. Every command
loads these objects to read config.yaml, so their module imports nothing slow; `open` imports the rest.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.secrets import COMMON_SECRETS, read_secret

GROUP = "doppel.platforms"
_NAME = re.compile(r"[a-z][a-z0-9_]*")

Account = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""An account or chat id; YAML may give it as a number."""

Environment = Mapping[str, str]
"""Environment variables; secrets come from here, never from config.yaml."""


class Section(BaseModel):
    """A part of config.yaml: unknown keys are errors, values are not changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlatformSettings(Section):
    """Base class of a platform's section. Every setting needs a default.

    `allow`: ids of accounts, groups, channels or servers that get replies; empty: nobody. `block`: ids that get none
    all the same, such as a person in an allowed group. `stranger_reply`: sent once to somebody who is in neither and
    writes in private; empty: nothing is.
    """

    enabled: bool = True
    allow: tuple[Account, ...] = ()
    block: tuple[Account, ...] = ()
    stranger_reply: str = Field(default="", max_length=1000)


Level = Literal["needed", "optional"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `doppel doctor`.

    Attributes:
        name: short and stable, for programs.
        ok: whether it is as it should be.
        hint: what was found, or what to do.
        level: `needed`: without it `doppel up` fails; `optional`: it comes by itself, or can stay off.
    """

    name: str
    ok: bool
    hint: str
    level: Level = "needed"


Settings = TypeVar("Settings", bound=Section)


@dataclass(frozen=True, kw_only=True)
class PlatformPlugin(Generic[Settings]):
    """A chat platform, described without importing its client library.

    Attributes:
        name: names the platform, its section in config.yaml and the targets of posts (`name:chat`).
        settings: model of its section; a `PlatformSettings` unless `is_public`.
        open: builds the platform (see `bot.platforms.Platform`) from its settings and the environment. Called only
            while `off_reason` is None.
        secrets: environment variables that must be set; their values never reach the log. Each may be in a file
            instead, which the variable with `_FILE` appended names; the environment that a platform is given always
            has the value itself.
        optional_secrets: like `secrets`, for what it can do without.
        is_public: everybody who can reach it gets replies, so it has no `allow`.
        find_problem: why it cannot run with these settings, beyond a missing secret; for a better text than the
            standard one it may also look at the secrets.
        checks: its own lines of `doppel doctor`, after the standard one.
        page_url: address of the page it serves, if it serves one.
        noisy_loggers: loggers whose routine messages are of no use to the user; only their warnings are shown.
    """

    name: str
    settings: type[Settings]
    open: Callable[[Settings, Environment], Any]
    secrets: tuple[str, ...] = ()
    optional_secrets: tuple[str, ...] = ()
    is_public: bool = False
    find_problem: Callable[[Settings, Environment], str | None] = lambda settings, environ: None
    checks: Callable[[Settings, Environment], Sequence[Check]] = lambda settings, environ: ()
    page_url: Callable[[Settings], str] | None = None
    noisy_loggers: tuple[str, ...] = ()

    def off_reason(self, settings: Settings, environ: Environment) -> str | None:
        """Why the platform stays off, in one line; None when it can run."""
        if not is_enabled(settings):
            return tr("{name} is off: {name}.enabled is false", name=self.name)
        if problem := self.find_problem(settings, environ):
            return problem
        if missing := [variable for variable in self.secrets if not read_secret(variable, environ)]:
            return tr("{name} is off: no token; set {variable}", name=self.name, variable=missing[0])
        return None

    def examine(self, settings: Settings, environ: Environment) -> list[Check]:
        """Its lines of `doppel doctor`: whether it is on and has somebody to reply to, then its own checks."""
        standard = [] if self.is_public else [self._standard_check(settings, environ)]
        return [*standard, *self.checks(settings, environ)]

    def _standard_check(self, settings: Settings, environ: Environment) -> Check:
        reason = self.off_reason(settings, environ)
        if reason is not None:
            return Check(name=self.name, ok=not is_enabled(settings), hint=reason, level="optional")
        allow = settings.allow if isinstance(settings, PlatformSettings) else ()
        if not allow:
            hint = tr(
                "{name}.allow is empty, so nobody gets a reply; write to the bot and the log shows the id to add",
                name=self.name,
            )
            return Check(name=self.name, ok=False, hint=hint, level="optional")
        return Check(name=self.name, ok=True, hint=tr("ready, {count} allowed", count=len(allow)), level="optional")


@dataclass(frozen=True)
class InstalledPlatforms:
    """What the entry points lead to. Both dicts are keyed by the platform's name.

    Attributes:
        plugins: the platforms that could be loaded.
        failures: why the others could not.
    """

    plugins: Mapping[str, PlatformPlugin[Any]]
    failures: Mapping[str, str]


@cache
def installed_platforms() -> InstalledPlatforms:
    """Every installed platform. One that cannot be loaded keeps no other from working."""
    plugins: dict[str, PlatformPlugin[Any]] = {}
    failures: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP)):
        try:
            plugins[point.name] = _load(point)
        except Exception as error:  # noqa: BLE001 - third-party code may raise anything
            failures[point.name] = str(error).partition("\n")[0] or type(error).__name__
    return InstalledPlatforms(plugins, failures)


def platform_settings(plugin: PlatformPlugin[Settings], sections: Mapping[str, Section]) -> Settings:
    """A platform's section of the configuration, or its defaults."""
    section = sections.get(plugin.name)
    return section if isinstance(section, plugin.settings) else plugin.settings()


def is_enabled(settings: Section) -> bool:
    """Whether a platform's section leaves it on; a section without `enabled` does."""
    return bool(getattr(settings, "enabled", True))


def page_url(sections: Mapping[str, Section]) -> str | None:
    """The address of the web page that `doppel run` serves; None when no installed platform that is on serves one."""
    for plugin in installed_platforms().plugins.values():
        settings = platform_settings(plugin, sections)
        if plugin.page_url is not None and is_enabled(settings):
            return plugin.page_url(settings)
    return None


def secret_variables(plugins: Iterable[PlatformPlugin[Any]]) -> tuple[str, ...]:
    """The names of all secrets that doppel or one of these platforms reads: what is never printed or logged."""
    of_platforms = (name for plugin in plugins for name in (*plugin.secrets, *plugin.optional_secrets))
    return tuple(dict.fromkeys((*COMMON_SECRETS, *of_platforms)))


def _load(point: EntryPoint) -> PlatformPlugin[Any]:
    plugin = point.load()
    if not isinstance(plugin, PlatformPlugin):
        raise UserError(tr("{object} is not a PlatformPlugin", object=point.value))
    if plugin.name != point.name or not _NAME.fullmatch(plugin.name):
        raise UserError(tr("a platform is named like its entry point, in a-z, 0-9 and _; got {name}", name=plugin.name))
    if not plugin.is_public and not issubclass(plugin.settings, PlatformSettings):
        raise UserError(tr("its settings are not a PlatformSettings"))
    plugin.settings()  # every setting needs a default
    return plugin
