"""Coverage-guided fuzzing of the archive readers. Needs atheris: pip install atheris.

    python benchmarks/fuzz.py [--seconds 60] [--reader telegram] [--corpus FOLDER] [--json]

Small valid exports of every format are damaged, written to a folder or a zip, and read by all installed readers. The
only error allowed is a UserError of one line, every message must be valid, and an archive must be read within seconds.
The files of a failure are kept, and their folder is printed with the traceback.

Prints one JSON object last. The exit code is 1 if something failed and 2 without atheris.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is not installed

MAX_SECONDS = 20
"""Maximum time to read one small archive."""

_RUNS_PER_SAVE = 64  # the count of runs is saved, as libFuzzer ends the process without notice
_FIRST_INPUTS = 200


def main() -> int:
    """Fuzzes in a child process, because libFuzzer ends its process; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz")
    parser.add_argument(
        "--reader", default="", help="only exports of this reader's format; they are read by all readers"
    )
    parser.add_argument("--corpus", type=Path, help="folder with inputs of earlier runs; new ones are added")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed, so nothing was fuzzed: pip install atheris", file=sys.stderr)
        return 2
    if arguments.worker is not None:
        fuzz(arguments.worker, arguments.reader, arguments.seconds, arguments.corpus)
    folder = Path(tempfile.mkdtemp(prefix="doppel-fuzz-"))
    command = [sys.executable, *sys.argv, "--worker", str(folder)]
    code = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    report = summary(folder, code)
    print(json.dumps(report))
    if not report["failures"]:
        shutil.rmtree(folder)
    return int(bool(report["failures"]))


def summary(folder: Path, code: int) -> dict[str, Any]:
    """The results of the child process. If libFuzzer ended with an error, the last archive is a failure, too."""
    runs = folder / "runs"
    failures = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/failure.json"))]
    if code:
        reason = f"ended with {code}: too slow, too much memory, or a crash of the interpreter"
        failures.append({"error": reason, "files": str(folder / "current")})
    return {"runs": int(runs.read_text()) if runs.exists() else 0, "failures": failures}


def fuzz(folder: Path, reader: str, seconds: int, corpus: Path | None) -> None:
    """Fuzzes for some seconds. Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["training"]):
        from tests.training.archives.hostile import EXPORTS

    names = [name for name in sorted(EXPORTS) if reader in ("", name[0])]
    if not names:
        available = ", ".join(sorted({name for name, _ in EXPORTS}))
        print(f"no export for {reader}; available: {available}", file=sys.stderr)
        sys.exit(3)
    corpus = corpus or folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        rng = random.Random(1)
        for number in range(_FIRST_INPUTS):
            (corpus / f"first-{number}").write_bytes(rng.randbytes(rng.randrange(8, 128)))
    limits = [f"-max_total_time={seconds}", f"-timeout={MAX_SECONDS}", "-rss_limit_mb=4096", "-max_len=256"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(corpus)], ReaderFuzzer(folder, names).run)
    atheris.Fuzz()


class ReaderFuzzer:
    """Damages exports, reads them, and keeps the files of each kind of failure once.

    Args:
        folder: where failures are kept.
        names: keys of `EXPORTS`: the exports to damage.
    """

    def __init__(self, folder: Path, names: list[tuple[str, str]]) -> None:
        from training.archives.discovery import installed_readers

        self._folder = folder
        self._names = names
        self._readers = installed_readers()
        self._runs = 0
        self._seen: set[tuple[str, str]] = set()

    def run(self, data: bytes) -> None:
        """Damages an export as the fuzzer's input says, and reads it."""
        import atheris

        from tests.training.archives.hostile import EXPORTS, damaged, survive, write

        provider = atheris.FuzzedDataProvider(data)
        name = self._names[provider.ConsumeIntInRange(0, len(self._names) - 1)]
        files = damaged(EXPORTS[name], lambda below: provider.ConsumeIntInRange(0, below - 1))
        archive = self._folder / "current"
        shutil.rmtree(archive, ignore_errors=True)
        archive.mkdir()
        path = write(archive, files, as_zip=provider.ConsumeBool())
        try:
            survive(path, self._readers)
        except Exception as error:  # noqa: BLE001 the readers may raise anything
            self._keep(error, archive)
        self._runs += 1
        if self._runs % _RUNS_PER_SAVE == 0:
            (self._folder / "runs").write_text(str(self._runs))

    def _keep(self, error: Exception, archive: Path) -> None:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if "/training/archives/" in frame.filename
        ]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if (type(error).__name__, where) in self._seen:
            return
        self._seen.add((type(error).__name__, where))
        kept = self._folder / f"failure-{len(self._seen)}"
        shutil.copytree(archive, kept)
        traceback.print_exception(error)
        failure = {"error": repr(error)[:300], "where": where, "files": str(kept), "at": round(time.time())}
        (kept / "failure.json").write_text(json.dumps(failure), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("LANG", "C.UTF-8")
    sys.exit(main())
