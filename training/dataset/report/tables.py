"""Tables of a build for the terminal: messages by archive and chat, sessions by split."""

from collections import Counter

from rich.table import Table
from rich.text import Text

from doppel.i18n import tr
from training.cleaning.rules import DropReason
from training.dataset.accounting import ChatCounts, sum_counts
from training.dataset.joined_chats import JoinedChat
from training.dataset.report.build_report import ChatReport, Report, SourceReport

MAX_CHATS = 10
"""Chats listed for each archive."""
MAX_SOURCES = 5
"""More archives of one format are shown as one."""


def chats_table(report: Report) -> Table:
    """Messages read, kept and dropped, for each archive and its largest chats."""
    table = Table(title=tr("Messages"), title_justify="left", show_footer=len(report.sources) > 1)
    table.add_column(tr("archive / chat"), tr("total"), overflow="fold")
    table.add_column(tr("read"), f"{report.read:,}", justify="right")
    table.add_column(tr("kept"), f"{report.kept:,}", justify="right")
    table.add_column(tr("left out"), format_reasons(report.dropped), overflow="fold")
    for name, source in group_by_format(report.sources).items():
        _add_row(table, name, source, style="bold")
        for chat in source.chats[:MAX_CHATS]:
            _add_row(table, f"  {chat.name or chat.chat}", chat)
        rest = source.chats[MAX_CHATS:]
        if rest:
            total = sum_counts(ChatCounts(0, "", "", chat.read, chat.kept, Counter(chat.dropped)) for chat in rest)
            _add_row(table, "  " + tr("{count} more chats", count=f"{len(rest):,}"), total, style="dim")
    return table


def sessions_table(report: Report) -> Table:
    """Number of sessions by split."""
    table = Table(title=tr("Sessions"), title_justify="left")
    table.add_column(tr("training"), justify="right")
    table.add_column(tr("validation"), justify="right")
    table.add_column(tr("test"), justify="right")
    table.add_row(*(f"{report.sessions[split]:,}" for split in ("train", "validation", "test")))
    return table


def group_by_format(sources: dict[str, SourceReport]) -> dict[str, SourceReport]:
    """The archives, merged by format where there are many of one, as some exports have one file per chat."""
    by_format: dict[str, list[tuple[str, SourceReport]]] = {}
    for name, source in sources.items():
        by_format.setdefault(name.partition(" ")[0], []).append((name, source))
    grouped: dict[str, SourceReport] = {}
    for format_name, named_sources in by_format.items():
        if len(named_sources) <= MAX_SOURCES:
            grouped.update(named_sources)
            continue
        reports = [source for _, source in named_sources]
        dropped: Counter[str] = Counter()
        for report in reports:
            dropped.update(report.dropped)
        title = tr("{format}, {count} archives", format=format_name, count=f"{len(reports):,}")
        grouped[title] = SourceReport(
            path="",
            read=sum(report.read for report in reports),
            kept=sum(report.kept for report in reports),
            dropped=dict(dropped),
            bad=sum(report.bad for report in reports),
            bad_records=[],
            one_sided=sum(report.one_sided for report in reports),
            chats=sorted(
                (chat for report in reports for chat in report.chats), key=lambda chat: (-chat.read, chat.chat)
            ),
        )
    return grouped


def one_sided_note(report: Report) -> str:
    """How many messages are one-sided, and what they are used for; empty if none are."""
    if not report.one_sided:
        return ""
    return tr(
        "Messages of yours without what others wrote: {count}. They teach your style and how you post, not how you "
        "begin a conversation.",
        count=f"{report.one_sided:,}",
    )


def joined_note(report: Report) -> str:
    """How many chats several archives have, and how many copies were left out; empty if there are none."""
    if not report.joined:
        return ""
    return tr(
        "Chats found in several archives and joined: {count}; copies left out: {copies}. All are listed in "
        "report.json.",
        count=f"{len(report.joined):,}",
        copies=f"{sum(chat.copies for chat in report.joined):,}",
    )


def joined_table(report: Report) -> Table:
    """The joined chats with most copies: what the archives call them, and how far their clocks are apart."""
    table = Table(title=tr("The same chat in several archives"), title_justify="left")
    table.add_column(tr("chat"), overflow="fold")
    table.add_column(tr("platform"))
    table.add_column(tr("archives"), justify="right")
    table.add_column(tr("copies left out"), justify="right")
    table.add_column(tr("clocks apart"), overflow="fold")
    for chat in sorted(report.joined, key=lambda chat: (-chat.copies, chat.chat))[:MAX_CHATS]:
        name = " = ".join(" ".join(name.split()) for name in chat.names)
        counts = (f"{len(chat.archives):,}", f"{chat.copies:,}", format_shifts(chat))
        table.add_row(*map(Text, (name, chat.platform, *counts)))
    return table


def format_shifts(chat: JoinedChat) -> str:
    """Such as `+2 h`: by how much the times in some archives were ahead of those in others."""
    return ", ".join(tr("{hours} h", hours=f"{hours:+g}") for hours in sorted(set(chat.shifts.values())))


def format_reasons(dropped: dict[str, int]) -> str:
    """Such as `media 12, forwarded 3`, the most frequent reason first."""
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason_name(reason)} {count:,}" for reason, count in ordered)


def reason_name(reason: str) -> str:
    """A `DropReason` in the user's language."""
    names: dict[str, str] = {
        DropReason.EMPTY: tr("empty"),
        DropReason.MEDIA: tr("media without text"),
        DropReason.SERVICE: tr("service message"),
        DropReason.FORWARD: tr("forwarded"),
        DropReason.RETWEET: tr("retweet"),
        DropReason.BOT: tr("bot"),
        DropReason.SUPERSEDED: tr("edited later"),
        DropReason.DELETED: tr("deleted"),
        DropReason.REACTION: tr("reaction"),
        DropReason.LINK_ONLY: tr("only a link"),
        DropReason.DUPLICATE: tr("duplicate"),
        DropReason.EXCLUDED: tr("excluded in config.yaml"),
        DropReason.FORGOTTEN: tr("forgotten contact"),
        DropReason.NEAR_DUPLICATE: tr("near-duplicate"),
        DropReason.REPEAT: tr("repeated too often"),
        DropReason.CONTACT_CAP: tr("over the share of one contact"),
        DropReason.NO_OWN_MESSAGE: tr("conversation without you"),
        DropReason.IN_TEST: tr("same as a test session"),
    }
    return names.get(reason, reason)


def _add_row(table: Table, name: str, counts: SourceReport | ChatReport | ChatCounts, style: str = "") -> None:
    reasons = format_reasons(dict(counts.dropped))
    table.add_row(Text(name), f"{counts.read:,}", f"{counts.kept:,}", reasons, style=style or None)
