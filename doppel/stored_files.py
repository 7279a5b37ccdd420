"""Every kind of file that doppel writes, and what becomes of it when a person is forgotten.

A test compares the list with the code and with what earlier versions wrote, so that no new file is left out.
"""

from enum import Enum

import msgspec


class Handling(Enum):
    """What `doppel forget` does with a kind of file."""

    ERASED = "erased"
    """What it holds of the person is removed."""
    NAMED = "named"
    """It was learned or derived from messages, and cannot be changed without losing all of it: the user is told where
    it is.
    """
    NOTHING_PERSONAL = "nothing personal"
    OF_THE_USER = "of the user"
    """Written where, and because, the user wanted it."""


class StoredFiles(msgspec.Struct, frozen=True):
    """A kind of file.

    Attributes:
        patterns: paths, as `fnmatch` takes them; `*` also matches `/`.
        writers: the modules that write it, apart from those of `doppel.system`.
        handling: what happens to it.
        reason: by what it is erased, or why it need not or cannot be.
    """

    patterns: tuple[str, ...]
    writers: tuple[str, ...]
    handling: Handling
    reason: str


STORED_FILES = (
    StoredFiles(
        ("*/systemd/user/doppel-*.service", "doppel.env"),
        ("doppel.cli.service",),
        Handling.NOTHING_PERSONAL,
        "how the daemon is started, and the owner's own tokens",
    ),
    StoredFiles(
        ("data/doppel.db", "data/doppel.db-wal", "data/doppel.db-shm"),
        ("bot.store.connect",),
        Handling.ERASED,
        "bot.store.personal_data; bot.store.erasure lists the tables",
    ),
    StoredFiles(
        ("data/doppel.db.forget.json", "data/doppel.db.forget-answer.json", "data/*.lock"),
        ("bot.store.forget_requests",),
        Handling.ERASED,
        "removed as soon as the running daemon has answered; locks are empty",
    ),
    StoredFiles(
        ("data/backups/*",),
        ("bot.store.backup",),
        Handling.NAMED,
        "copies of the database from before; `doppel forget` says that they are there",
    ),
    StoredFiles(
        ("data/*/sessions.jsonl", "data/*/contacts.json", "data/*/report.json", "data/*/report.html"),
        (
            "training.dataset.build",
            "training.dataset.files",
            "training.dataset.forget",
            "training.dataset.report.page",
            "training.people.contacts",
        ),
        Handling.ERASED,
        "training.personal_data writes them anew without the person",
    ),
    StoredFiles(
        ("data/*/quiz.json",),
        ("doppel.reports.quiz",),
        Handling.ERASED,
        "training.personal_data removes the questions; `doppel quiz --page` makes new ones",
    ),
    StoredFiles(
        ("data/*/scrubbed.jsonl",),
        ("training.privacy.scrub",),
        Handling.ERASED,
        "training.personal_data removes the log, as a file of the archive may be named after a person",
    ),
    StoredFiles(
        ("data/*/scrub.key",), ("training.privacy.scrub",), Handling.NOTHING_PERSONAL, "random bytes for the stand-ins"
    ),
    StoredFiles(
        ("data/*/scrub.stand-ins",),
        ("training.privacy.known_stand_ins",),
        Handling.NOTHING_PERSONAL,
        "keyed hashes of made-up values",
    ),
    StoredFiles(
        ("data/*.parents.jsonl",),
        ("training.dataset.parent_fetcher",),
        Handling.ERASED,
        "training.personal_data removes their posts; that one was asked for stays, by its number",
    ),
    StoredFiles(
        ("data/*.forgotten.json",),
        ("training.privacy.blocklist",),
        Handling.NOTHING_PERSONAL,
        "salted hashes, so that later builds leave the person out",
    ),
    StoredFiles(
        ("data/*/habits.json", "data/*.training/habits.json", "adapters/*/*/habits.json"),
        ("doppel.adapters.habits",),
        Handling.NOTHING_PERSONAL,
        "the owner's typing speed and hours, in numbers",
    ),
    StoredFiles(
        ("data/*/messages.tmp",),
        ("training.dataset.message_store",),
        Handling.NOTHING_PERSONAL,
        "exists only while a build runs",
    ),
    StoredFiles(
        ("data/*.training/*", "data/.*.training.lock"),
        (
            "doppel.adapters.checkpoint",
            "doppel.adapters.peft_format",
            "training.lora.model",
            "training.run.checkpoints",
            "training.run.completion_marker",
            "training.run.metrics",
            "training.run.run_state",
            "training.run.speed",
        ),
        Handling.NAMED,
        "weights learned from the messages, and the order in which they are read",
    ),
    StoredFiles(
        ("data/*.tuning/*",),
        ("training.tuning.search", "training.tuning.study"),
        Handling.NAMED,
        "weights of trials; deleting it costs the trials so far",
    ),
    StoredFiles(
        ("data/*.tracking/*",), ("training.run.trackers",), Handling.NOTHING_PERSONAL, "curves of trainings, in numbers"
    ),
    StoredFiles(
        ("adapters/*/quiz/*.json", "adapters/*/*/fidelity.json", "adapters/*/quiz/*.lock"),
        ("doppel.reports.quiz", "doppel.adapters.update"),
        Handling.ERASED,
        "doppel.reports.quiz_participants takes the name out of the results and the report's list of them",
    ),
    StoredFiles(
        ("adapters/*",),
        (
            "doppel.adapters.checkpoint",
            "doppel.adapters.guard",
            "doppel.adapters.peft_format",
            "doppel.adapters.update",
            "doppel.adapters.versions",
            "training.run.publish",
        ),
        Handling.NAMED,
        "weights learned from the messages, hashes of the owner's words, and a report on them",
    ),
    StoredFiles(
        ("cache/llamacpp/*",),
        ("doppel.adapters.export.target",),
        Handling.NAMED,
        "copies of adapters; the README says where, and the engine deletes those that it has not used for long",
    ),
    StoredFiles(
        ("cache/*",),
        ("doppel.models.base", "doppel.models.bundled", "training.lora.replay"),
        Handling.NOTHING_PERSONAL,
        "base models, their digests, and text that they wrote by themselves",
    ),
    StoredFiles(("config.yaml",), ("training.tuning.config_edit",), Handling.OF_THE_USER, "settings"),
    StoredFiles(
        ("exports/*",),
        (
            "doppel.adapters.export.merged",
            "doppel.adapters.export.target",
            "doppel.cli.mydata",
            "training.dataset.export",
        ),
        Handling.OF_THE_USER,
        "exports, at a path that the user chose; doppel does not record where",
    ),
)
