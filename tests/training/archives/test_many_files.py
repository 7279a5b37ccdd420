"""Archives of tens of thousands of files: found in one pass, and one archive where they are one chat by days."""

from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

from tests.training.dataset.test_build import build
from tests.training.exports import ZONE
from tests.training.messages import message
from training.archives import file_groups
from training.archives.discovery import discover, installed_readers
from training.dataset.message_store import MessageStore


def daily_logs(folder: Path, days: int, channel: str = "#tea") -> None:
    folder.mkdir(exist_ok=True)
    for number in range(days):
        day = date(1990, 1, 1) + timedelta(days=number)
        (folder / f"{channel}_{day:%Y%m%d}.log").write_text(
            "[10:00:00] <Tom> hi\n[10:00:01] <Ann> hello\n" + ("nonsense\n" if number == 1 else "")
        )


def test_a_file_a_day_is_one_archive(tmp_path: Path) -> None:
    daily_logs(tmp_path / "logs", 40)
    daily_logs(tmp_path / "logs", 5, "#walk")
    (tmp_path / "logs" / "odd.xyz").write_text("x")
    discovery = discover([str(tmp_path / "logs")], tmp_path, ZONE, installed_readers())
    with closing(discovery):
        assert [Path(source.tree.label).name for source in discovery.sources] == ["#tea_*.log", "#walk_*.log"]
        messages = [list(source.reader.read(source.tree)) for source in discovery.sources]
        assert [len(read) for read in messages] == [80, 10]
        assert messages[0][0].chat == "#tea"
        assert [source.tree.bad_count for source in discovery.sources] == [1, 1]
        assert discovery.sources[0].tree.bad_records[0].file.endswith("#tea_19900102.log")
        assert [Path(name).name for name in discovery.unread().files] == ["odd.xyz"]


def test_the_report_has_a_row_for_all_days(tmp_path: Path) -> None:
    daily_logs(tmp_path / "logs", 100)
    report = build(tmp_path, "logs", persona={"me": ["Ann"]})
    (source,) = report.sources.values()
    assert (source.read, source.bad, len(source.chats)) == (200, 1, 1)


def test_very_many_files_of_one_format_are_one_archive(tmp_path: Path) -> None:
    for number in range(file_groups.MANY_FILES + 5):
        (tmp_path / f"room {number}.csv").write_text("username,text,timestamp\nTom,hi,1600000000\n")
    discovery = discover([str(tmp_path)], tmp_path, ZONE, installed_readers())
    with closing(discovery):
        (source,) = discovery.sources
        assert len({read.chat for read in source.reader.read(source.tree)}) == file_groups.MANY_FILES + 5


def test_more_archives_than_a_short_number_can_count(tmp_path: Path) -> None:
    store = MessageStore(tmp_path / "messages.tmp")
    for number in (0, 65_535, 65_536, 70_000):
        store.add(number, message(number + 1, "hi"))
    (chat,) = store.chats()
    assert chat.source_numbers() == {0, 65_535, 65_536, 70_000}
    store.close()
