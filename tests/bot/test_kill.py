"""A short run of benchmarks/kill.py: killed once at each of its moments, nothing is lost, said twice or damaged."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill.py"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow machine takes long to start a process
async def test_killed_at_every_moment_it_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *("--kills", "8", "--daemons", "4", "--life", "1.5"),
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
    result = json.loads(printed.splitlines()[-1])
    assert result["messages"] > 20
    assert (result["lost"], result["doubled"], result["answered_twice"], result["integrity"]) == ([], 0, 0, True)
    assert (result["migrations"]["kills"], result["migrations"]["wrong"]) == (1, 0)
    assert (result["publications"]["kills"], result["publications"]["damaged"], result["publications"]["left"]) == (
        1,
        0,
        0,
    )
