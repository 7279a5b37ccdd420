"""Programs that tests run as their users do."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path


async def run_python(*arguments: str, cwd: Path | None = None) -> bytes:
    """Runs Python in a process of its own, which ends with the test; returns what it prints. It must not fail."""
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, stderr=PIPE, cwd=cwd)
    try:
        printed, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return printed
