"""`doppel adapters import`: from a folder of PEFT's to a version that the engine serves as PEFT would."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from doppel.adapters.habits import Habits, read_habits
from doppel.adapters.peft_format import PICKLED
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, current_version, list_versions, read_manifest
from doppel.cli.app import app
from doppel.engine import Request, Sampling
from doppel.engine.local.engine import TransformersEngine
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.transcript import Header
from tests.tiny import build_base, publish_adapter, save_lora


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/doppel-was-here"),))


@pytest.fixture
def root(tmp_path: Path, tiny_base: Path) -> Path:
    (tmp_path / "config.yaml").write_text(f"persona: {{name: ann}}\nmodel: {{base: {tiny_base}, dtype: float32}}\n")
    (tmp_path / "theirs").mkdir()
    save_lora(tiny_base, tmp_path / "theirs")
    return tmp_path


def bring(root: Path, *arguments: str) -> Result:
    command = ["adapters", "import", *arguments, "--json", "--config", str(root / "config.yaml")]
    return CliRunner().invoke(app(), command, catch_exceptions=False)


async def test_an_old_pickled_adapter_speaks_as_it_did_with_peft(root: Path, tiny_base: Path) -> None:
    theirs = root / "theirs"
    expected = PeftModel.from_pretrained(load_model(tiny_base, torch.float32), theirs)
    torch.save(load_file(theirs / WEIGHTS), theirs / PICKLED)
    (theirs / WEIGHTS).unlink()
    result = bring(root, str(theirs), "--use")
    assert result.exit_code == 0, result.stderr
    folder = current_version(root / "adapters" / "ann")
    assert folder is not None
    assert json.loads(result.stdout)["adapter"] == str(folder)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, PEFT_CONFIG, "habits.json", "manifest.json"}
    identity = identify(tiny_base, str(tiny_base))
    engine = TransformersEngine(load_model(tiny_base, torch.float32), load_tokenizer(tiny_base), identity)
    try:
        name = await engine.load_adapter(folder)
        prompt = engine.transcript.prompt(Header(), [])
        sampling = Sampling(temperature=0, max_tokens=24)
        request = Request(prompt=prompt, sampling=sampling, stop_ids=frozenset(), adapter=name)
        reply = [token.id async for token in engine.generate(request)]
    finally:
        engine.close()
    ids = torch.tensor([prompt])
    again = expected.generate(
        input_ids=ids,
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=-1,
        suppress_tokens=sorted(engine.transcript.forbidden_ids),
    )
    assert reply == again[0, len(prompt) :].tolist()


def test_the_manifest_of_an_import_has_what_its_files_say(root: Path) -> None:
    result = bring(root, str(root / "theirs"))
    assert result.exit_code == 0
    folder = root / "adapters" / "ann" / json.loads(result.stdout)["version"]
    manifest = read_manifest(folder)
    assert manifest.persona == "ann"
    assert manifest.fidelity == {}
    assert manifest.header_vocabulary == {}
    assert manifest.training["rank"] == 4
    assert str(root) not in (folder / PEFT_CONFIG).read_text().replace(manifest.base.id, "")
    listed = CliRunner().invoke(app(), ["adapters", "list", "--json", "--config", str(root / "config.yaml")])
    assert json.loads(listed.stdout)["adapters"][0]["bits_per_byte_after"] is None


def test_a_version_that_doppel_published_elsewhere_keeps_its_manifest(root: Path, tiny_base: Path) -> None:
    published = publish_adapter(tiny_base, root / "elsewhere", seed=3, habits=Habits(seconds_per_character=0.5))
    assert bring(root, str(published), "--use").exit_code == 0
    folder = current_version(root / "adapters" / "ann")
    assert folder is not None
    manifest, before = read_manifest(folder), read_manifest(published)
    assert manifest.persona == "ann"
    assert manifest.header_vocabulary == before.header_vocabulary
    assert read_habits(folder).seconds_per_character == 0.5
    assert manifest.files[WEIGHTS] != ""
    (published / WEIGHTS).write_bytes(b"broken")
    result = bring(root, str(published))
    assert result.exit_code == 1
    assert "is damaged" in result.stderr


def test_another_base_is_refused_unless_forced(root: Path) -> None:
    settings = json.loads((root / "theirs" / PEFT_CONFIG).read_text())
    settings["base_model_name_or_path"] = "google/gemma-3-1b-pt"
    (root / "theirs" / PEFT_CONFIG).write_text(json.dumps(settings))
    result = bring(root, str(root / "theirs"))
    assert result.exit_code == 1
    assert "made for the base model google/gemma-3-1b-pt" in result.stderr
    assert list_versions(root / "adapters" / "ann") == []
    assert bring(root, str(root / "theirs"), "--force").exit_code == 0


def test_a_published_version_of_another_base_is_refused_unless_forced(root: Path) -> None:
    other = build_base(root / "other", seed=9)
    published = publish_adapter(other, root / "elsewhere")
    result = bring(root, str(published))
    assert result.exit_code == 1
    assert "trained on another base model" in result.stderr
    assert bring(root, str(published), "--force").exit_code == 0


def test_force_does_not_accept_other_shapes(root: Path) -> None:
    other = build_base(root / "other", hidden_size=64)
    shutil.rmtree(root / "theirs")
    (root / "theirs").mkdir()
    save_lora(other, root / "theirs")
    result = bring(root, str(root / "theirs"), "--force")
    assert result.exit_code == 1
    assert "in the adapter but" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list_versions(root / "adapters" / "ann") == []


def test_a_pickle_with_more_than_tensors_is_refused_in_one_line(root: Path) -> None:
    """In a process of its own, as torch warns on stderr."""
    torch.save({"a": Hostile()}, root / "theirs" / PICKLED)
    (root / "theirs" / WEIGHTS).unlink()
    command = ["adapters", "import", str(root / "theirs"), "--config", str(root / "config.yaml")]
    result = subprocess.run(
        [sys.executable, "-m", "doppel", *command], capture_output=True, text=True, check=False, cwd=root
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "adapter_model.bin is damaged or contains more than tensors" in result.stderr


def test_a_missing_folder_is_a_user_error(root: Path) -> None:
    result = bring(root, str(root / "nowhere"))
    assert result.exit_code == 2
    assert "no such folder" in result.stderr


def test_an_import_is_in_use_only_when_asked_for(root: Path) -> None:
    adapters = root / "adapters" / "ann"
    result = bring(root, str(root / "theirs"))
    assert json.loads(result.stdout)["in_use"] is False
    assert "`doppel evaluate 0001` examines it" in result.stderr
    assert list_versions(adapters) == ["0001"]
    assert current_version(adapters) is None
    result = bring(root, str(root / "theirs"), "--use")
    assert json.loads(result.stdout)["in_use"] is True
    assert current_version(adapters) == adapters / "0002"
    bring(root, str(root / "theirs"))
    assert current_version(adapters) == adapters / "0002"
