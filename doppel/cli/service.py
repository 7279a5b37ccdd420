"""`doppel service`: runs the daemon as a systemd service of this user, which starts it again after a failure.

`install` writes a unit and a file for tokens and prints what to type next; it changes nothing that runs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from doppel.cli.app import Run, as_command
from doppel.config import Config
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.plugins import installed_platforms, secret_variables
from doppel.system.atomic_file import write_atomically
from doppel.system.write_errors import translate_write_errors
from doppel.terminal import print_status

SYSTEMD_RUNS = Path("/run/systemd/system")
"""Exists while systemd is this machine's service manager (sd_booted)."""

WATCHDOG_SECONDS = 60
STOP_SECONDS = 20

_MARK = "# Written by `doppel service install`."
_SYSTEMCTL_SECONDS = 60
_OTHERS = 0o077

_UNIT = """\
{mark} Further settings belong into a drop-in: systemctl --user edit {name}
[Unit]
Description=doppel: {persona}

[Service]
Type=notify
WorkingDirectory={folder}
ExecStart={command}
EnvironmentFile=-{secrets}
# Loading a large base model may take long; after that the watchdog takes over.
TimeoutStartSec=infinity
WatchdogSec={watchdog}
TimeoutStopSec={stop}
Restart=on-failure
RestartSec=10
# 2: the configuration is wrong, which another start does not change.
RestartPreventExitStatus=2

# What user units can restrict without privileges. No MemoryDenyWriteExecute: torch and numba compile at run time.
UMask=0077
# A core dump, as after the watchdog's signal, would hold private messages.
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""

_SECRETS = """\
# Tokens and passwords for `doppel run` as a service, one NAME=value a line. Only you may read this file.
# Remove the # of those that you use. A value may also be in a file of its own: NAME_FILE=/path/to/it
"""

service = typer.Typer(
    help="Run the daemon as a systemd service: install it, remove it, see how it does.", no_args_is_help=True
)


def install_command(run: Run) -> dict[str, Any]:
    """Write a systemd unit that runs `doppel run` with this configuration; says what to type next."""
    config = run.config
    _require_systemd()
    unit = unit_path(config, os.environ)
    secrets = config.root / "doppel.env"
    content = unit_text(config, run.config_path.resolve(), secrets)
    if unit.exists() and _MARK not in unit.read_text(encoding="utf-8", errors="replace"):
        raise UserError(tr("{path}: was not written by doppel; remove it or rename the persona", path=unit))
    _prepare_secrets(secrets)
    with translate_write_errors(unit):
        unit.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(unit, content.encode())
    print_status(tr("Written: {path}", path=unit))
    print_status(tr("Put your tokens into {path}, then type:", path=secrets))
    for line in (
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {unit.stem}",
        "loginctl enable-linger    # " + tr("so that it also runs while you are not logged in"),
        f"journalctl --user --unit {unit.stem} --follow    # " + tr("its log"),
    ):
        print_status(f"  {line}")
    return {"unit": str(unit), "secrets": str(secrets)}


def uninstall_command(run: Run) -> dict[str, Any]:
    """Stop the service and remove its unit; data, adapters and the file with tokens stay."""
    _require_systemd()
    unit = unit_path(run.config, os.environ)
    if not unit.exists():
        raise UserError(tr("{path}: no such unit; the service is not installed", path=unit))
    _systemctl("disable", "--now", unit.name)
    with translate_write_errors(unit):
        unit.unlink(missing_ok=True)
    _systemctl("daemon-reload")
    print_status(tr("Removed: {path}. Tokens stay in {secrets}.", path=unit, secrets=run.config.root / "doppel.env"))
    return {"unit": str(unit)}


def status_command(run: Run) -> dict[str, Any]:
    """Show whether the service runs, and what it says about itself."""
    _require_systemd()
    unit = unit_path(run.config, os.environ)
    if not unit.exists():
        print_status(tr("The service is not installed; `doppel service install` does it."))
        return {"unit": str(unit), "installed": False}
    names = ("ActiveState", "SubState", "StatusText", "NRestarts", "UnitFileState")
    output = _systemctl("show", unit.name, f"--property={','.join(names)}")
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    active, sub_state, text, restarts, enabled = (values.get(name, "") for name in names)
    print_status(
        tr(
            "{unit}: {state}; restarts: {count}; at login: {enabled}",
            unit=unit.stem,
            state=f"{active} ({sub_state})" + (f", {text}" if text else ""),
            count=restarts or "0",
            enabled=enabled or "disabled",
        )
    )
    return {
        "unit": str(unit),
        "installed": True,
        "active": active,
        "state": sub_state,
        "status": text,
        "restarts": int(restarts) if restarts.isdecimal() else 0,
        "enabled": enabled,
    }


def unit_path(config: Config, environ: Mapping[str, str]) -> Path:
    """Where the persona's unit belongs."""
    folder = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return folder / "systemd" / "user" / f"doppel-{config.persona.name}.service"


def unit_text(config: Config, config_path: Path, secrets: Path) -> str:
    """The unit's content.

    Args:
        config: whose persona names the unit.
        config_path: absolute path of the configuration.
        secrets: absolute path of the file with tokens.

    Raises:
        UserError: a path cannot be written into a unit.
    """
    command = [sys.executable, "-P", "-m", "doppel", "run", "--config", str(config_path)]
    for text in (*command, str(secrets)):
        if not text.isprintable():
            raise UserError(tr("{path}: has a line break or a control character; rename it", path=repr(text)))
    return _UNIT.format(
        mark=_MARK,
        name=f"doppel-{config.persona.name}",
        persona=config.persona.name,
        folder=_escape(str(config_path.parent)),
        command=" ".join(map(_quote, command)),
        secrets=_escape(str(secrets)),
        watchdog=WATCHDOG_SECONDS,
        stop=STOP_SECONDS,
    )


def _escape(text: str) -> str:
    """A value that is a path, in which only `%` has a meaning."""
    return text.replace("%", "%%")


def _quote(word: str) -> str:
    """A word of a command line."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_escape(escaped)}"'


def _prepare_secrets(path: Path) -> None:
    """Creates the file for tokens, for this user alone; one that is there stays.

    Raises:
        UserError: others can read it. DoppelError: it cannot be written.
    """
    with translate_write_errors(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if path.stat().st_mode & _OTHERS:
                raise UserError(
                    tr(
                        "{variable}: other users can read {path}; run `chmod 600 {path}`",
                        variable=path.name,
                        path=path,
                    )
                ) from None
            return
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            names = secret_variables(installed_platforms().plugins.values())
            file.write(_SECRETS + "".join(f"# {name}=\n" for name in names))


def _require_systemd() -> None:
    if not SYSTEMD_RUNS.is_dir():
        raise UserError(tr("systemd does not run on this machine; start `doppel run` by the service manager it has"))


def _systemctl(*arguments: str) -> str:
    """What `systemctl --user` prints. Raises DoppelError when it fails."""
    program = shutil.which("systemctl")
    if program is None:
        raise UserError(tr("systemd does not run on this machine; start `doppel run` by the service manager it has"))
    try:
        done = subprocess.run(  # noqa: S603 - the system's program with our own arguments
            [program, "--user", *arguments], capture_output=True, text=True, check=True, timeout=_SYSTEMCTL_SECONDS
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().partition("\n")[0] or str(error.returncode)
        raise DoppelError(tr("systemctl --user {command}: {error}", command=arguments[0], error=reason)) from None
    except subprocess.TimeoutExpired:
        raise DoppelError(
            tr("systemctl --user {command}: {error}", command=arguments[0], error=tr("no answer"))
        ) from None
    return done.stdout


service.command("install")(as_command(install_command))
service.command("uninstall")(as_command(uninstall_command))
service.command("status")(as_command(status_command))
