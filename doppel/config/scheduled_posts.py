"""Whether scheduled posts can be made: the one check of `doppel doctor` and `doppel run`."""

from pathlib import Path

from doppel.config.root import Config
from doppel.config.sections import PostSettings
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.plugins import Environment, InstalledPlatforms, platform_settings


def check_scheduled_posts(config: Config, path: Path, environ: Environment, installed: InstalledPlatforms) -> None:
    """Checks when and where the posts go; `path` is the config file.

    Raises:
        UserError: a cron expression is invalid or never matches, or a platform is off or not installed.
    """
    for post in config.posts:
        if post.cron is not None:
            _check_cron(post, post.cron, path)
        _check_target(post, config, path, environ, installed)


def _check_cron(post: PostSettings, cron: str, path: Path) -> None:
    from doppel.config.cron import CronExpression

    try:
        expression = CronExpression(cron)
    except ValueError as error:
        raise UserError(tr("{path}: post `{name}`: cron: {error}", path=path, name=post.name, error=error)) from None
    if not expression.ever_matches():
        raise UserError(
            tr(
                "{path}: post `{name}`: cron: no day ever matches `{cron}`; correct its day or month",
                path=path,
                name=post.name,
                cron=cron,
            )
        )


def _check_target(
    post: PostSettings, config: Config, path: Path, environ: Environment, installed: InstalledPlatforms
) -> None:
    name = post.to.partition(":")[0]
    place = {"path": path, "name": post.name, "platform": name}
    if name in installed.failures:
        raise UserError(_off(installed.failures[name], **place))
    if name not in installed.plugins:
        available = ", ".join(sorted(installed.plugins))
        raise UserError(
            tr(
                "{path}: post `{name}`: unknown platform `{platform}`; available: {available}",
                available=available,
                **place,
            )
        )
    plugin = installed.plugins[name]
    if reason := plugin.off_reason(platform_settings(plugin, config.platforms), environ):
        raise UserError(_off(reason, **place))


def _off(reason: str, **place: object) -> str:
    return tr("{path}: post `{name}` goes to {platform}, which is off: {reason}", reason=reason, **place)
