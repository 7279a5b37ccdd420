"""The whole configuration: what config.yaml says, and the folders and names that follow from it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, ValidationError, field_validator, model_validator

from doppel.config.sections import (
    Archives,
    ArchiveSettings,
    CleaningSettings,
    EngineSettings,
    ExcludeSettings,
    ModelSettings,
    PersonaSettings,
    PersonSettings,
    PostSettings,
    PrivacySettings,
    ReplySettings,
    StoreSettings,
    TrainingSettings,
)
from doppel.i18n import tr
from doppel.plugins import Section, installed_platforms


class Config(Section):
    """The whole of config.yaml. Relative paths are relative to the file's folder, `root`.

    `platforms` holds the section of every installed platform by its name. In the file they stand at the top level.
    """

    language: Literal["auto", "en", "zh"] = "auto"
    timezone: str = "auto"
    persona: PersonaSettings = PersonaSettings()
    archive: Archives = "sample"
    privacy: PrivacySettings = PrivacySettings()
    exclude: ExcludeSettings = ExcludeSettings()
    cleaning: CleaningSettings = CleaningSettings()
    people: tuple[PersonSettings, ...] = ()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    transcript: Literal["base", "chat"] = "base"
    training: TrainingSettings = TrainingSettings()
    reply: ReplySettings = ReplySettings()
    platforms: Mapping[str, Section] = {}
    posts: tuple[PostSettings, ...] = ()
    data: str = "data"
    adapters: str = "adapters"
    store: StoreSettings = StoreSettings()
    root: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _collect_platform_sections(cls, content: dict[str, Any]) -> dict[str, Any]:
        platforms = installed_platforms()
        core = {key: value for key, value in content.items() if key not in {*platforms.plugins, *platforms.failures}}
        if "platforms" in content:
            return core
        sections = {}
        for name, plugin in platforms.plugins.items():
            try:
                sections[name] = plugin.settings.model_validate(content.get(name, {}))
            except ValidationError as error:
                raise _located_in(name, error) from None
        return {**core, "platforms": sections}

    @field_validator("archive")
    @classmethod
    def _some_archive(cls, value: Archives) -> Archives:
        if not value or (isinstance(value, tuple) and not all(value)):
            raise ValueError(tr("name at least one path, or sample"))
        return value

    @field_validator("posts")
    @classmethod
    def _names_differ(cls, value: tuple[PostSettings, ...]) -> tuple[PostSettings, ...]:
        names = [post.name for post in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(tr("two posts are named {name}; each needs its own name", name=twice))
        return value

    @field_validator("people")
    @classmethod
    def _people_differ(cls, value: tuple[PersonSettings, ...]) -> tuple[PersonSettings, ...]:
        names = [person.name.casefold() for person in value]
        if twice := next((person.name for person in value if names.count(person.name.casefold()) > 1), None):
            raise ValueError(tr("two people are named {name}; put all accounts of one person together", name=twice))
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value != "auto" and value not in available_timezones():
            raise ValueError(tr("no such time zone; write it like Europe/Berlin or Asia/Shanghai"))
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The owner's time zone; `auto` is the machine's."""
        return ZoneInfo(self.timezone if self.timezone != "auto" else _local_zone_name())

    @property
    def data_dir(self) -> Path:
        """data/<persona>/, what `doppel build` writes and `doppel train` reads."""
        return self.root / self.data / self.persona.name

    @property
    def adapters_dir(self) -> Path:
        """adapters/<persona>/, where versions are published."""
        return self.root / self.adapters / self.persona.name

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the daemon's database."""
        return self.store.url if "://" in self.store.url else f"sqlite:///{self.root / self.store.url}"

    @property
    def archive_digest(self) -> str:
        """Digest of what a data set is made from, as written here: archives, the owner's accounts, what is left out."""
        parts: tuple[Section, ...] = (self.privacy, self.exclude, self.cleaning, *self.people)
        rules = [part.model_dump_json(by_alias=True) for part in parts]
        tables = [table.model_dump_json(exclude_none=True) for table in self.tables.values()]
        lines = [*self.archives, *tables, "", *self.persona.me, *rules]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @property
    def archives(self) -> tuple[str, ...]:
        """The archives as written: `sample` or paths."""
        return tuple(archive if isinstance(archive, str) else archive.path for archive in self._each_archive())

    @property
    def tables(self) -> dict[str, ArchiveSettings]:
        """The archives that are tables of the owner's own, by their paths as in `archives`."""
        return {
            archive.path: archive
            for archive in self._each_archive()
            if isinstance(archive, ArchiveSettings) and archive.is_table
        }

    def _each_archive(self) -> tuple[str | ArchiveSettings, ...]:
        return self.archive if isinstance(self.archive, tuple) else (self.archive,)


def _located_in(section: str, error: ValidationError) -> ValidationError:
    """The errors of one section as errors of the whole file: their keys begin with the section's name."""
    details: list[Any] = [{**detail, "loc": (section, *detail["loc"])} for detail in error.errors()]
    return ValidationError.from_exception_data(error.title, details)


def _local_zone_name() -> str:
    from tzlocal import get_localzone_name

    return get_localzone_name() or "UTC"
