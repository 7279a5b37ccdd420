"""What a reader of an export format has to do."""

from collections.abc import Iterator
from typing import Protocol

from training.archives.message import Message
from training.archives.source_tree import SourceTree


class Reader(Protocol):
    """Reads one export format. Everything a new reader has to do is in this docstring.

    A reader is a class without arguments, registered as an entry point:

        [project.entry-points."doppel.archives"]
        myformat = "my_package.reader:MyReader"

    Discovery calls `sniff` for every folder and every single file under the configured paths, including those inside
    zips, and `read` for those that `sniff` accepted. Both get a SourceTree: one folder with everything beneath it, or
    one file (`tree.is_file`; its name is `tree.files()[0]`). A reader only judges the place it is given: discovery
    itself descends into subfolders. `tree.head(name)` returns the first bytes of a file, `tree.open(name)` the whole
    file as a binary stream, and `tree.zone` is the owner's time zone, for times that an export writes without one.
    What comes first in a file is chance (a deleted message, keys in another order): for JSON, `json_outline.outline`
    shows its keys and first items.

    What `read` must do:
    - Yield one `Message` for every record, in the order of the file, and decide nothing: a forward, a notice or a
      deleted message is yielded too, with its `mark`.
    - Never hold a whole file in memory, and never raise for a damaged record: report it with
      `tree.report_bad(file, position, error)` and go on with the next.
    - Use ids that a later export of the same chat repeats: overlapping exports are merged by (platform, chat, id).
    - Set `is_owner` to None where the export does not say who the owner is.

    `training.archives.formats` has what most readers need. For JSON, JSON Lines and CSV, `archive_records` reads the
    records one by one and turns them into messages with a function of yours:

        def read(self, tree):
            file = tree.files()[0]
            yield from messages_of(tree, file, json_lines(tree, file), _message)

    Attributes:
        name: the format: lower case, unique, without spaces.
        accepts: what the user can hand over, in English, as `doppel build --list-formats` shows it; empty to hide it.
    """

    name: str
    accepts: str

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this place is an archive of the format. Must be fast and strict."""
        ...

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Yields every record as a message; reports unreadable records to `tree.report_bad`."""
        ...
