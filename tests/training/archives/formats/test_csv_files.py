"""CSV files as spreadsheets and careless scripts write them: one bad row costs one row."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.formats.csv_files import csv_columns, csv_rows
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder

HEADER = "id,username,text,timestamp\n"


def rows(count: int, odd: dict[int, str]) -> str:
    return HEADER + "".join(odd.get(n, f'{n},Tom,"text, {n}",{1_600_000_000 + n}') + "\n" for n in range(count))


def read(folder: Path, content: str | bytes) -> tuple[list[Message], list[BadRecord]]:
    (folder / "chat.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_all(folder / "chat.csv")


@pytest.mark.parametrize("odd", ['5,Tom,"broken,1600000005', '5,Tom,"a "b, c" d,1600000005', '5,"Tom,x,1600000005'])
@pytest.mark.parametrize("quoted", [True, False])
def test_a_stray_quote_costs_at_most_its_row(tmp_path: Path, odd: str, quoted: bool) -> None:
    content = rows(40, {5: odd})
    if not quoted:
        content = content.replace('"text, ', "text ").replace('",16', ",16")
    messages, bad = read(tmp_path, content)
    assert [message.text for message in messages if message.id != "5"] == [
        f"text, {n}" if quoted else f"text {n}" for n in range(40) if n != 5
    ]
    assert len(messages) + len(bad) == 40


@pytest.mark.parametrize("text", ['"he said "yes" to it"', '5" disk', '"two\nlines "quoted" here"', '"1,2\n3,4"'])
def test_quotes_that_can_be_told_cost_nothing(tmp_path: Path, text: str) -> None:
    messages, bad = read(tmp_path, rows(40, {5: f"5,Tom,{text},1600000005"}))
    assert (len(messages), bad) == (40, [])
    assert messages[5].text == text.removeprefix('"').removesuffix('"' if text.startswith('"') else "")


def test_a_large_field_and_an_unfinished_row(tmp_path: Path) -> None:
    large = "x" * 400_000
    messages, bad = read(tmp_path, rows(3, {1: f'1,Tom,"{large}",1600000001'}) + '3,Tom,"half of')
    assert [len(message.text) for message in messages] == [7, 400_000, 7]
    assert len(bad) == 1


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_what_a_spreadsheet_saved_again(tmp_path: Path, delimiter: str, encoding: str) -> None:
    lines = [
        ["username", "text", "timestamp"],
        ["Zoë", '"she said ""naïve"", twice"', "05.03.2023 14:12"],
        ["Tom", "café", "25.03.2023 14:13"],
    ]
    content = "\r\n".join(delimiter.join(line) for line in lines) + "\r\n"
    messages, bad = read(tmp_path, content.encode(encoding))
    assert not bad
    assert [(message.sender, message.text, message.sent_at.month) for message in messages] == [
        ("Zoë", 'she said "naïve", twice', 3),
        ("Tom", "café", 3),
    ]


def test_a_declared_delimiter_and_rows_within_quotes(tmp_path: Path) -> None:
    messages, bad = read(tmp_path, "sep=;\nusername;text;timestamp\nTom;a, b;1600000000\n")
    assert ([message.text for message in messages], bad) == (["a, b"], [])
    messages, bad = read(tmp_path, '"username,text,timestamp"\n"Tom,""a, b"",1600000000"\n')
    assert ([message.text for message in messages], bad) == (["a, b"], [])


def test_rounded_ids_join_nothing_and_are_told(tmp_path: Path) -> None:
    content = "AuthorID,Author,Date,Content,Attachments,Reactions\n" + "".join(
        f"4.10E+17,{name},03/14/2021 9:0{n} AM,hi {n},,\n" for n, name in enumerate(("Mara", "Tom"))
    )
    (tmp_path / "general.csv").write_text(content)
    tree = SourceTree(open_folder(tmp_path), "general.csv", "general.csv", ZONE)
    assert len(list(csv_rows(tree, "general.csv"))) == 2
    assert tree.notes == [
        "general.csv: a spreadsheet has rounded ids to numbers like 4.10E+17; export again, and do not save the file "
        "with a spreadsheet"
    ]
    assert [message.sender for message in read_all(tmp_path / "general.csv")[0]] == ["Mara", "Tom"]


def test_discords_old_files_without_account_ids(tmp_path: Path) -> None:
    first = '"Mara#1234";"14-Mar-21 09:00 AM";"hi ""you""";\r\n'
    content = f"Author;Date;Content;Attachments\r\n{first}Tom#1;14-Mar-21 09:01 AM;yo;"
    (tmp_path / "general.csv").write_text(content)
    messages, bad = read_all(tmp_path / "general.csv")
    assert not bad
    assert [(message.platform, message.sender, message.sender_name, message.text) for message in messages] == [
        ("discord", "Mara#1234", "Mara", 'hi "you"'),
        ("discord", "Tom#1", "Tom#1", "yo"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n\n", "text", "text\nhi\n", HEADER, "a,a,a\n1,2,3\n", '"', '"a\n', "\0\0", ",,,\n,,,\n"),
        *("," * 200_000 + "\n" + "," * 200_000, HEADER + "," * 1_000_000 + "\n", '"' * 100_001, "sep=;\n"),
    ],
)
def test_odd_files_are_read_or_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "chat.csv").write_text(content)
    tree = SourceTree(open_folder(tmp_path), "chat.csv", "chat.csv", ZONE)
    columns, rows = csv_columns(tree, "chat.csv"), list(csv_rows(tree, "chat.csv"))
    assert all(isinstance(name, str) for name in columns)
    assert [number for number, _ in rows] == sorted({number for number, _ in rows})


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text('ab",; ', max_size=8), min_size=1, max_size=6))
@example(texts=['"', '"'])
def test_any_text_in_one_row_leaves_the_others(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    content = HEADER + "".join(f"{n},Tom,plain {n},{1_600_000_000 + n}\n" for n in range(5))
    odd = "".join(f"9{n},Tom,{text},16000001{n:02}\n" for n, text in enumerate(texts))
    end = "".join(f"{n},Tom,plain {n},{1_600_000_000 + n}\n" for n in range(5, 10))
    messages, bad = read(folder, content + odd + end)
    plain = [message.text for message in messages if message.text.startswith("plain ")]
    assert plain == [f"plain {n}" for n in range(10)]
    assert len(bad) <= len(texts)
