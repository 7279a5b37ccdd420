"""The marker of complete checkpoints."""

from pathlib import Path

from training.run.completion_marker import is_complete, mark_complete


def test_a_folder_is_complete_once_it_is_marked(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    assert not is_complete(tmp_path)
    mark_complete(tmp_path)
    assert is_complete(tmp_path)


def test_a_changed_or_new_file_makes_it_incomplete(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    mark_complete(tmp_path)
    (tmp_path / "weights").write_bytes(b"2")
    assert not is_complete(tmp_path)
    (tmp_path / "weights").write_bytes(b"1")
    (tmp_path / "more").touch()
    assert not is_complete(tmp_path)


def test_what_a_killed_process_left_of_a_marker_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    for name in (".whole.json", ".whole.json.12-34"):
        (tmp_path / name).write_bytes(b"{")
    mark_complete(tmp_path)
    assert is_complete(tmp_path)
