"""Checks the targets of scheduled posts; shared by `doppel doctor` and `doppel run`."""

from pathlib import Path

from doppel.config.root import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.plugins import Environment, InstalledPlatforms, platform_settings


def check_post_targets(config: Config, path: Path, environ: Environment, installed: InstalledPlatforms) -> None:
    """Raises UserError when a post goes to a platform that is off or not installed; `path` is the config file."""
    for post in config.posts:
        name = post.to.partition(":")[0]
        context = {"path": path, "name": post.name, "platform": name}
        if name in installed.failures:
            raise UserError(_off(installed.failures[name], **context))
        if name not in installed.plugins:
            available = ", ".join(sorted(installed.plugins))
            raise UserError(
                tr(
                    "{path}: post `{name}`: unknown platform `{platform}`; available: {available}",
                    available=available,
                    **context,
                )
            )
        plugin = installed.plugins[name]
        if reason := plugin.off_reason(platform_settings(plugin, config.platforms), environ):
            raise UserError(_off(reason, **context))


def _off(reason: str, **context: object) -> str:
    return tr("{path}: post `{name}` goes to {platform}, which is off: {reason}", reason=reason, **context)
