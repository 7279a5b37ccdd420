"""A short run of benchmarks/faults.py: what the daemon depends on breaks while people write, and is mended again."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow machine takes long to start a process
async def test_every_message_is_answered_once_after_a_fault(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *("--seconds", "2", "--side-by-side", "2", "--faults", "internal error", "engine failed"),
        stdout=PIPE,
        stderr=PIPE,
        cwd=tmp_path,
    )
    try:
        printed, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    for result in json.loads(printed.splitlines()[-1])["faults"].values():
        assert result["messages"] > 0
        assert (result["lost"], result["doubled"], result["answered_twice"]) == ([], 0, 0)
        assert (result["integrity"], result["still_running"], result["readyz_after"]) == (True, True, 200)
