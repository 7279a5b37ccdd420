"""Adapters on disk: a version is complete or absent, and nothing untrusted is served."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.adapters.versions import (
    CURRENT,
    MANIFEST,
    PEFT_CONFIG,
    RANK_CAP,
    WEIGHTS,
    AdapterRefused,
    Manifest,
    check_base,
    current_version,
    list_versions,
    publishing,
    read_manifest,
    roll_back,
    use_version,
)
from doppel.errors import DoppelError, UserError
from doppel.models.base import BaseIdentity
from doppel.system.durable_files import file_digest

BASE = BaseIdentity("bundled", "00ff")
MANIFEST_OF_ANN = Manifest(persona="ann", base=BASE, dataset={"digest": "1234"})


def fill(folder: Path, **settings: Any) -> None:
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / PEFT_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 16, **settings}))


def publish(adapters: Path, **settings: Any) -> Path:
    with publishing(adapters, MANIFEST_OF_ANN) as staging:
        fill(staging, **settings)
    folder = current_version(adapters)
    assert folder is not None
    return folder


def rewrite(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    return tmp_path / "adapters" / "ann"


class TestPublishing:
    def test_a_version_is_complete_and_current(self, adapters: Path) -> None:
        folder = publish(adapters)
        assert folder == adapters / "0001"
        manifest = read_manifest(folder)
        assert manifest.version == "0001"
        assert manifest.base == BASE
        assert manifest.dataset == {"digest": "1234"}
        assert manifest.files == {name: file_digest(folder / name) for name in (WEIGHTS, PEFT_CONFIG)}
        assert sorted(path.name for path in adapters.iterdir()) == ["0001", CURRENT]

    def test_versions_count_up_past_gaps_and_in_order_of_number(self, adapters: Path) -> None:
        for number in ("0002", "9999"):
            (adapters / number).mkdir(parents=True)
        (adapters / "notes").mkdir()
        assert publish(adapters).name == "10000"
        assert list_versions(adapters) == ["0002", "9999", "10000"]

    def test_files_in_folders_are_digested_too(self, adapters: Path) -> None:
        with publishing(adapters, MANIFEST_OF_ANN) as staging:
            fill(staging)
            (staging / "report").mkdir()
            (staging / "report" / "index.html").write_text("fine")
        assert "report/index.html" in read_manifest(adapters / "0001").files

    def test_an_exception_leaves_everything_as_it_was(self, adapters: Path) -> None:
        publish(adapters)
        with pytest.raises(ZeroDivisionError), publishing(adapters, MANIFEST_OF_ANN) as staging:
            (staging / WEIGHTS).write_bytes(bytes(1 // 0))
        assert sorted(path.name for path in adapters.iterdir()) == ["0001", CURRENT]
        assert current_version(adapters) == adapters / "0001"

    def test_a_kill_leaves_no_version_and_the_next_one_is_published(self, adapters: Path) -> None:
        dies = (
            "import os, sys, signal; from pathlib import Path; from doppel.adapters.versions import *\n"
            "with publishing(Path(sys.argv[1]), Manifest(persona='ann', base=BaseIdentity('b', 'd'))) as staging:\n"
            "    (staging / 'adapter_model.safetensors').write_bytes(b'half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", dies, str(adapters)], check=False).returncode == -9
        assert list_versions(adapters) == []
        assert current_version(adapters) is None
        assert publish(adapters).name == "0001"

    def test_what_a_kill_left_is_removed_after_a_day(self, adapters: Path) -> None:
        publish(adapters)
        for name, hours in ((".publishing-old", 25), (".publishing-young", 1)):
            (adapters / name).mkdir()
            (adapters / name / WEIGHTS).write_bytes(b"half")
            os.utime(adapters / name, (time.time() - hours * 3600,) * 2)
        publish(adapters)
        assert sorted(path.name for path in adapters.iterdir()) == [".publishing-young", "0001", "0002", CURRENT]

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "adapters").write_text("a file")
        with pytest.raises(DoppelError, match="cannot be written"), publishing(tmp_path / "adapters", MANIFEST_OF_ANN):
            pass


class TestChoosing:
    def test_use_and_rollback(self, adapters: Path) -> None:
        first, second = publish(adapters), publish(adapters)
        assert current_version(adapters) == second
        assert roll_back(adapters) == first
        assert current_version(adapters) == first
        with pytest.raises(UserError, match="no earlier adapter"):
            roll_back(adapters)
        assert use_version(adapters, "0002") == second
        assert current_version(adapters) == second

    def test_an_unknown_version_is_refused_and_the_known_are_named(self, adapters: Path) -> None:
        publish(adapters)
        for version in ("0002", "../0001", ""):
            with pytest.raises(UserError, match="published: 0001"):
                use_version(adapters, version)

    def test_a_damaged_version_does_not_become_current(self, adapters: Path) -> None:
        first, second = publish(adapters), publish(adapters)
        (first / WEIGHTS).write_bytes(b"weight?")
        with pytest.raises(AdapterRefused, match="damaged"):
            roll_back(adapters)
        assert current_version(adapters) == second

    @pytest.mark.parametrize("content", [b"", b"../../etc\n", b"\xff\xff", b"0001 0002", b"1"])
    def test_a_damaged_pointer_names_no_version(self, adapters: Path, content: bytes) -> None:
        publish(adapters)
        (adapters / CURRENT).write_bytes(content)
        assert current_version(adapters) is None

    def test_without_versions_nothing_is_current(self, adapters: Path) -> None:
        assert list_versions(adapters) == []
        assert current_version(adapters) is None
        with pytest.raises(UserError, match="published: none"):
            use_version(adapters, "0001")


def remove_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def change_one_byte(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"weightS")


def add_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")


def list_only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    digest = file_digest(folder / "adapter_model.bin")
    rewrite(folder, files={"adapter_model.bin": digest, PEFT_CONFIG: file_digest(folder / PEFT_CONFIG)})


def link_weights(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def link_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


def list_file_outside(folder: Path) -> None:
    (folder.parent / "outside").write_text("x")
    files = json.loads((folder / MANIFEST).read_bytes())["files"]
    rewrite(folder, files={**files, "../outside": file_digest(folder.parent / "outside")})


def raise_rank(folder: Path) -> None:
    fill(folder, r=RANK_CAP + 1)
    rewrite(folder, files={name: file_digest(folder / name) for name in (WEIGHTS, PEFT_CONFIG)})


def raise_rank_of_one_layer(folder: Path) -> None:
    fill(folder, rank_pattern={"q_proj": 100_000})
    rewrite(folder, files={name: file_digest(folder / name) for name in (WEIGHTS, PEFT_CONFIG)})


def be_no_lora(folder: Path) -> None:
    fill(folder, peft_type="PROMPT_TUNING")
    rewrite(folder, files={name: file_digest(folder / name) for name in (WEIGHTS, PEFT_CONFIG)})


def garble_settings(folder: Path) -> None:
    (folder / PEFT_CONFIG).write_text("[1, 2]")
    rewrite(folder, files={name: file_digest(folder / name) for name in (WEIGHTS, PEFT_CONFIG)})


def be_of_another_format(folder: Path) -> None:
    rewrite(folder, transcript="doppel-99")


def be_of_another_schema(folder: Path) -> None:
    rewrite(folder, schema=99)


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-10])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (remove_weights, "adapter_model.safetensors is missing"),
        (change_one_byte, "adapter_model.safetensors is damaged"),
        (add_pickle, "adapter_model.bin is not in the manifest"),
        (list_only_pickle, "adapter_model.safetensors is missing"),
        (link_weights, "adapter_model.safetensors is a link"),
        (link_folder, "more is a link"),
        (list_file_outside, "../outside is missing"),
        (raise_rank, "not a LoRA of rank 1 to 512"),
        (raise_rank_of_one_layer, "not a LoRA of rank 1 to 512"),
        (be_no_lora, "not a LoRA"),
        (garble_settings, "adapter_config.json cannot be read"),
        (be_of_another_format, "another version of doppel"),
        (be_of_another_schema, "another version of doppel"),
        (lose_manifest, "has no manifest.json"),
        (cut_manifest, "manifest.json cannot be read"),
    ],
)
def test_an_invalid_version_is_refused_in_one_line(adapters: Path, harm: Callable[[Path], None], says: str) -> None:
    folder = publish(adapters)
    harm(folder)
    with pytest.raises(AdapterRefused) as caught:
        read_manifest(folder)
    assert says in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_to_an_adapter_is_refused(adapters: Path) -> None:
    folder = publish(adapters)
    (adapters / "0002").symlink_to(folder)
    with pytest.raises(AdapterRefused, match="not an adapter folder"):
        read_manifest(adapters / "0002")


def test_another_base_is_refused_by_its_weights(adapters: Path) -> None:
    folder = publish(adapters)
    manifest = read_manifest(folder)
    check_base(folder, manifest, BaseIdentity("the same under another name", BASE.digest))
    with pytest.raises(AdapterRefused, match=r"trained on another base model \(bundled\); model\.base is other/model"):
        check_base(folder, manifest, BaseIdentity("other/model", "ee"))


def test_other_weights_under_the_same_name_are_told_apart_by_their_digests(adapters: Path) -> None:
    folder = publish(adapters)
    base = BaseIdentity(BASE.id, "0123456789abcdef")
    with pytest.raises(AdapterRefused, match=r"other weights of bundled \(SHA-256 00ff…, here 01234567…\)"):
        check_base(folder, read_manifest(folder), base)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*Manifest.__struct_fields__, "more"])


@given(changes=st.dictionaries(fields, json_values, max_size=4))
def test_a_manifest_of_garbage_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = publish(tmp_path_factory.mktemp("garbage"))
    rewrite(folder, **changes)
    _read_or_refuse(folder)


@given(content=st.binary(max_size=50))
def test_a_manifest_of_bytes_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = publish(tmp_path_factory.mktemp("bytes"))
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(AdapterRefused):
        read_manifest(folder)


@given(settings=st.dictionaries(st.sampled_from(["peft_type", "r", "rank_pattern", "more"]), json_values, max_size=4))
def test_peft_settings_of_garbage_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    _read_or_refuse(publish(tmp_path_factory.mktemp("settings"), **settings))


def _read_or_refuse(folder: Path) -> None:
    try:
        manifest = read_manifest(folder)
    except AdapterRefused:
        return
    assert manifest.files.keys() >= {WEIGHTS, PEFT_CONFIG}
    msgspec.json.encode(manifest)
