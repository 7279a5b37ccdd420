"""A short run of benchmarks/faults.py: what the daemon depends on breaks while people write, and is mended again."""

import json
from pathlib import Path

import pytest

from tests.scripts import run_python

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow machine takes long to start a process
async def test_every_message_is_answered_once_after_a_fault(tmp_path: Path) -> None:
    faults = ("--faults", "internal error", "engine failed")
    printed = await run_python(str(SCRIPT), "--seconds", "2", "--side-by-side", "2", *faults, cwd=tmp_path)
    for result in json.loads(printed.splitlines()[-1])["faults"].values():
        assert result["messages"] > 0
        assert (result["lost"], result["doubled"], result["answered_twice"]) == ([], 0, 0)
        assert (result["integrity"], result["still_running"], result["readyz_after"]) == (True, True, 200)
