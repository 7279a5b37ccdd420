"""A folder is replaced as a whole or not at all."""

from pathlib import Path

import pytest

from doppel.errors import DoppelError, UserError
from doppel.system.atomic_folder import atomic_folder


def publish(target: Path, text: str) -> None:
    with atomic_folder(target, "marker") as staging:
        (staging / "marker").write_text(text)


def test_the_new_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    target = tmp_path / "data" / "me"
    publish(target, "one")
    (target / "extra").write_text("x")
    publish(target, "two")
    assert [path.name for path in target.iterdir()] == ["marker"]
    assert (target / "marker").read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["me"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "me"
    publish(target, "one")

    def stop_in_the_middle() -> None:
        with atomic_folder(target, "marker") as staging:
            (staging / "marker").write_text("half")
            raise error

    with pytest.raises(error):
        stop_in_the_middle()
    assert (target / "marker").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["me"]


def test_a_first_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError), atomic_folder(tmp_path / "data" / "me", "marker"):
        raise UserError("no")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".me.building").mkdir()
    (tmp_path / ".me.building" / "junk").write_text("x")
    publish(tmp_path / "me", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["me"]
    assert not (tmp_path / "me" / "junk").exists()


def test_a_power_cut_between_the_renames_is_repaired(tmp_path: Path) -> None:
    publish(tmp_path / "me", "one")
    (tmp_path / "me").rename(tmp_path / ".me.old")
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "me", "marker"):
        raise ValueError("stop")
    assert (tmp_path / "me" / "marker").read_text() == "one"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_anything_but_a_data_set_is_not_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "documents"
    if kind == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    else:
        target.write_text("years of work")
    with pytest.raises(UserError, match="is not a data set, so it is not replaced"):
        publish(target, "one")
    assert target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["documents"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DoppelError, match="cannot be written"):
        publish(tmp_path / "file" / "me", "one")
