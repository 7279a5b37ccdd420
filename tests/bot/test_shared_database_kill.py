"""A short run of benchmarks/shared_database.py: one of three daemons is killed, and nothing is lost or said twice."""

import json
from pathlib import Path

import pytest

from tests.bot.postgres import POSTGRES_PROGRAMS
from tests.scripts import run_python

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shared_database.py"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow machine takes long to start a process
@pytest.mark.skipif(POSTGRES_PROGRAMS is None, reason="PostgreSQL is not installed")
async def test_three_daemons_that_are_killed_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    printed = await run_python(str(SCRIPT), "--count", "3", "--kills-only", cwd=tmp_path)
    result = json.loads(printed.splitlines()[-1])
    assert result["messages"] > 20
    assert result["slots_posted"] > 0
    failed = [result[name] for name in ("lost", "doubled", "answered_twice", "slots_posted_twice", "errors")]
    assert failed == [[], 0, 0, 0, []]
