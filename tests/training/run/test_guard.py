"""What training publishes brings a guard of what it was trained on, and of nothing else."""

from pathlib import Path

import msgspec

from doppel.adapters.guard import FILE
from doppel.adapters.importing import import_adapter
from doppel.adapters.versions import read_manifest, version_folder
from doppel.persona import read_persona
from doppel.transcript import Turn
from tests.doppel.adapters.test_guard import CHINESE, SECRET
from tests.training.runs import small_config, small_run
from training.dataset.files import SESSIONS_FILE, read_sessions, write_sessions
from training.run.run import run_training


def test_an_adapter_has_a_guard_of_its_training_sessions(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base, epochs=0.1)
    sessions = list(read_sessions(config.data_dir))
    for number, text in ((3, SECRET), (-1, CHINESE)):
        turns = (Turn("Ramito", (text,)), *sessions[number].turns)
        sessions[number] = msgspec.structs.replace(sessions[number], turns=turns)
    assert sessions[-1].split == "test"
    write_sessions(config.data_dir / SESSIONS_FILE, sessions)
    run_training(config)
    folder = version_folder(config.adapters_dir)
    assert FILE in read_manifest(folder).files
    guard = read_persona(folder).guard
    assert guard is not None
    assert guard.objects(SECRET) is not None
    assert guard.objects(CHINESE) is None
    assert guard.objects("haha haha haha no idea, ask somebody else") is None
    elsewhere = small_config(tmp_path / "elsewhere", tiny_base)
    import_adapter(elsewhere, folder, force=False, use=True)
    assert (version_folder(elsewhere.adapters_dir) / FILE).read_bytes() == (folder / FILE).read_bytes()
