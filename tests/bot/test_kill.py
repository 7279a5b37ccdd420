"""A short run of benchmarks/kill.py: killed once at each of its moments, nothing is lost, said twice or damaged."""

import json
from pathlib import Path

import pytest

from tests.scripts import run_python

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill.py"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow machine takes long to start a process
async def test_killed_at_every_moment_it_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    printed = await run_python(str(SCRIPT), "--kills", "8", "--daemons", "4", "--life", "1.5", cwd=tmp_path)
    result = json.loads(printed.splitlines()[-1])
    assert result["messages"] > 20
    assert (result["lost"], result["doubled"], result["answered_twice"], result["integrity"]) == ([], 0, 0, True)
    assert (result["migrations"]["kills"], result["migrations"]["wrong"]) == (1, 0)
    assert (result["publications"]["kills"], result["publications"]["damaged"], result["publications"]["left"]) == (
        1,
        0,
        0,
    )
