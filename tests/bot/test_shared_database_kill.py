"""A short run of benchmarks/shared_database.py: one of three daemons is killed, and nothing is lost or said twice."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.bot.postgres import POSTGRES_PROGRAMS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shared_database.py"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow machine takes long to start a process
@pytest.mark.skipif(POSTGRES_PROGRAMS is None, reason="PostgreSQL is not installed")
async def test_three_daemons_that_are_killed_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), "--count", "3", "--kills-only", stdout=PIPE, stderr=PIPE, cwd=tmp_path
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
    assert result["slots_posted"] > 0
    failed = [result[name] for name in ("lost", "doubled", "answered_twice", "slots_posted_twice", "errors")]
    assert failed == [[], 0, 0, 0, []]
