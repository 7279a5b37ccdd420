"""config.yaml: its sections with their defaults, and clear errors for what may not stand in it."""

from doppel.config.load import load_config, parse_config
from doppel.config.paths import cache_dir
from doppel.config.root import Config
from doppel.config.sections import (
    ArchiveSettings,
    BiasSettings,
    CleaningSettings,
    EngineSettings,
    ExcludeSettings,
    MixSettings,
    ModelSettings,
    PersonaSettings,
    PersonSettings,
    PostSettings,
    PrivacySettings,
    PrivateKind,
    ReplySettings,
    StoreSettings,
    TrainingSettings,
    parse_duration,
)
from doppel.plugins import PlatformSettings, Section

__all__ = [
    "ArchiveSettings",
    "BiasSettings",
    "CleaningSettings",
    "Config",
    "EngineSettings",
    "ExcludeSettings",
    "MixSettings",
    "ModelSettings",
    "PersonSettings",
    "PersonaSettings",
    "PlatformSettings",
    "PostSettings",
    "PrivacySettings",
    "PrivateKind",
    "ReplySettings",
    "Section",
    "StoreSettings",
    "TrainingSettings",
    "cache_dir",
    "load_config",
    "parse_config",
    "parse_duration",
]
