"""Reads WhatsApp's chat export: `_chat.txt` from an iPhone, `WhatsApp Chat with ….txt` from an Android phone.

Two passes over the file: the first collects the names and finds whether the day or the month comes first, the second
yields messages. The export does not say which name is the owner's, only whom a private chat is with.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, time

import msgspec

from doppel.i18n import tr
from training.archives.formats.chat_text import TextChat, TextRecord
from training.archives.formats.group_notices import is_group_notice
from training.archives.formats.local_times import (
    DAY_FIRST,
    MONTH_FIRST,
    DatePlaces,
    DateSurvey,
    dates_do_not_fit,
    local_date,
)
from training.archives.formats.sender_names import MAX_NAME_LENGTH, NameSurvey, SenderNames
from training.archives.formats.text_lines import decode_head, multiline_records
from training.archives.formats.timestamps import AM_PM, hour_24
from training.archives.message import Mark, Message
from training.archives.signal.signal_export import is_chat_text
from training.archives.source_tree import SourceTree

_DIRECTION = "[\u200e\u200f]*"
"""Direction marks, which Arabic dates have between their numbers."""
_DATE = (
    rf"(?P<a>\d{{1,4}}){_DIRECTION}(?P<sep>[/.\-년年])\s?(?P<b>\d{{1,2}}){_DIRECTION}[/.\-월月]\s?(?P<c>\d{{1,4}})"
    r"(?:[.日일]|\sг\.)?"
)
_TIME = (
    rf"(?:(?!\d)(?:klo\s|kl\.?\s|lúc\s|um\s|at\s|à\s|às\s|alle\s|a\slas\s))?(?:(?!\d)(?P<before>{AM_PM}))?\s?(?P<hour>\d{{1,2}})[:.](?P<minute>\d\d)"
    rf"(?:[:.](?P<second>\d\d))?(?:\s?(?P<after>{AM_PM}))?"
)
_STAMP = rf"{_DATE}[,،]?\s+{_TIME}"
_HEADS = {
    "ios": re.compile(rf"[\u200e\u200f]*\[{_STAMP}\]\s", re.IGNORECASE),
    "android": re.compile(rf"[\u200e\u200f]*{_STAMP}\s[-\u2013]\s", re.IGNORECASE),
}
_SENDER = re.compile(rf"[^\n]{{1,{MAX_NAME_LENGTH}}}?:(?: |$)", re.MULTILINE)
_END = r"(?: ?\(\d+\))?(?:\.txt|\.zip)?$"
_WITH = r"with|mit|con|avec|com|met|med|z|s|dengan|kanssa|с контактом|с|-"
_TITLES = (
    re.compile(rf"(?:与|與)\s?(?P<name>.+?)\s?的\s?WhatsApp\s?(?:聊天|對話).*?{_END}"),
    re.compile(rf"(?P<name>.+?)\s?(?:님과의|との) ?WhatsApp ?(?:대화|トーク|チャット).*?{_END}"),
    re.compile(rf"WhatsApp\s?の?\s?(?P<name>.+?)\s?との(?:トーク|チャット).*?{_END}"),
    re.compile(rf"(?P<name>.+?) ile WhatsApp Sohbeti{_END}", re.IGNORECASE),
    re.compile(rf"WhatsApp\s?聊天\s?-\s?(?P<name>.+?){_END}"),
    re.compile(rf"WhatsApp(?:[ -]?(?:chat|keskustelu))? (?:{_WITH}) (?P<name>.+?){_END}", re.IGNORECASE),
)

# Placeholders of files that were not exported, and of files that were, by the word that says so.
_ABSENT = (
    r"omitted|weggelassen|ausgelassen|ausgeschlossen|omis|omit|omessi|omesso|oculta|ocult|não revelad|weggelaten|"
    r"без медиа|пропущ|pominięt|dahil edilmedi|disertakan|略去|忽略|省略|含まれて|メディア(?:無|な)し|"
    r"생략|제외|استبعاد|لم يتم|לא נכלל|השמט|"
    r"jätet(?:ty|tiin) pois|utelämna|udeladt|utelatt|vynechán|hiányz|παραλ|bỏ qua|ไม่รวม|शामिल नहीं|छोड़"
)
_ATTACHED = (
    r"attached|anexo|adjunto|angehängt|joint|allegato|bijgevoegd|anexad|добавлен|вложен|załącz|ekli|terlampir|"
    r"附件|附檔|添付|첨부"
)
_MEDIA = re.compile(
    rf"<[^<>\n]*(?:{_ABSENT}|{_ATTACHED})[^<>\n]*>"
    r"|(?:image|video|audio|sticker|gif|document|contact card|kontaktkarte|bild|imagen|imagem|"
    rf"figurinha|документ|图像|圖片|影片|视频|音频|貼圖|贴图|画像|動画|사진|동영상)\s?(?:已|를|을|は)?\s?(?:{_ABSENT})\w*\.?"
    rf"|(?:video note|view once \w+)\s(?:{_ABSENT})\w*\.?|(?:live )?location shared"
    r"|[^\n:]{2,40}: https://maps\.google\.com/\?q=\S+|location: https://\S+"
    rf"|[A-Z]{{3}}-\d{{8}}-WA\d+\.\w+ \([^()\n]+\)|[^\n]+\.\w{{2,4}} \([^()\n]*(?:{_ATTACHED})[^()\n]*\)",
    re.IGNORECASE,
)
_STICKER = re.compile(r"(?:sticker|figurinha|貼圖|贴图|スタンプ|스티커)\b|[^\n]*(?:\.webp \(|-STICKER-)", re.IGNORECASE)
_DELETED = re.compile(
    r"(?:this message was deleted|you deleted this message|(?:diese nachricht wurde|du hast diese nachricht) gelöscht|"
    r"se eliminó este mensaje|eliminaste este mensaje|ce message a été supprimé|vous avez supprimé ce message|"
    r"(?:essa|esta) mensagem foi (?:apagada|eliminada)|mensagem apagada|você apagou esta mensagem|apagou esta mensagem|"
    r"questo messaggio è stato eliminato|hai eliminato questo messaggio|dit bericht is verwijderd|"
    r"u hebt dit bericht verwijderd|je hebt dit bericht verwijderd|данное сообщение удалено|сообщение удалено|"
    r"вы удалили (?:данное|это) сообщение|wiadomość została usunięta|usunięto tę wiadomość|bu mesaj silindi|"
    r"bu mesajı sildiniz|pesan ini (?:telah )?dihapus|anda (?:telah )?menghapus pesan ini|tämä viesti poistettiin|"
    r"det här meddelandet raderades|denne (?:besked|melding(?:en)?) (?:blev|ble) slettet|تم حذف هذه الرسالة|"
    r"لقد حذفت هذه الرسالة|ההודעה (?:הזו )?נמחקה|このメッセージは削除されました|このメッセージを削除しました|"
    r"メッセージを削除しました|삭제된 메시지입니다|(?:이 메시지는|메시지를) 삭제(?:되었습니다|했습니다)|此消息已删除|"
    r"此消息已被删除|[你您]已?删除(?:了)?(?:这条|此)消息|(?:此|這則)訊息已(?:被)?刪除|已刪除此訊息|[你您](?:已刪除|刪除了)(?:此|這則)訊息)[.。]?",
    re.IGNORECASE,
)
_EDITED = re.compile(
    r"<[^<>\n]{0,40}(?:edited|bearbeitet|editó|editad|modifi|modificato|bewerkt|изменено|edytowan|"
    r"düzenlendi|diedit|muokat|redigera|redigeret|redigert|编辑|編輯|編集|수정|편집|تعديل|נערכה|"
    r"chỉnh sửa)[^<>\n]{0,20}>$",
    re.IGNORECASE,
)
# On an iPhone everything that the app itself writes into a message begins with U+200E, in every language.
_BY_APP = re.compile(r"\u200e<(?P<what>[^<>\n]{1,200})>$")
# The placeholder of a file may follow its name or its caption.
_PLACEHOLDER_AT_END = re.compile(rf"\u200e(?P<what>[^\u200e<>\n]{{0,40}}(?:{_ABSENT})\w*\.?)$", re.IGNORECASE)
_FILE = re.compile(r"[^\n]{1,200}\.\w{2,5}(?: • .{1,30})?$")
_POLL = re.compile(r"(?:POLL|UMFRAGE|ENCUESTA|SONDAGE|SONDAGGIO|ENQUETE|ANKET|投票|投票活動)[:：]\n")
_CALL = re.compile(
    r"(?:(?:Missed |Silenced )?(?:group )?(?:Voice|Video|Group) call(?:, .{1,40}|\.)?"
    r"|Verpasster? (?:Gruppen-?)?(?:Sprach|Video)anruf|(?:Llamada|Videollamada)(?: de (?:voz|v[ií]deo)| grupal)?"
    r" perdida|Appel (?:vocal|vidéo)(?: de groupe)? manqué|(?:Chiamata|Videochiamata)(?: vocale)? persa"
    r"|(?:Chamada|Ligação) de (?:voz|v[ií]deo) perdida|Gemist(?:e)? (?:spraak|video-?)oproep"
    r"|Пропущенный (?:аудио|видео)?звонок|未接(?:语音|視訊|视频|語音)(?:通话|通話|来电|來電)"
    r"|(?:音声|ビデオ)通話(?:不在着信|に応答がありませんでした)|不在着信|부재중 (?:음성|영상) ?통화)\.?$",
    re.IGNORECASE,
)
_ENCRYPTED = re.compile(
    r"end-to-end|ende-zu-ende|端到端|端對端|extremo a extremo|ponta a ponta|bout en bout|crittografat|сквозн|uçtan uca|"
    r"エンドツーエンド|종단간|종단 간|تمامًا بين الطرفين|מקצה לקצה|päästä päähän|kompleksowo",
    re.IGNORECASE,
)
_CLEAN = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069\ufeff"))
_BLANKS = {0x202F: " ", 0xA0: " "}
_DIRECTION_MARKS = "\u200e\u200f"
_QUOTES = ('"“”„', "«»", "「」")
_ANGLED = re.compile(r"<[^<>\n]{3,60}>")
_NOTHING = "null"
"""What Android writes for a view-once picture; people may write it too."""
_MIN_PLACEHOLDER_COUNT = 3
_MIN_SENTENCE_WORDS = 5
_MAX_ANGLED = 1000
_SNIFFED = 4096


class _Survey(msgspec.Struct):
    """What the first pass found.

    Attributes:
        form: `ios` or `android`.
        places: positions of year, month and day among the three numbers of a date.
        misfits: number of dates that are impossible in this order, if it is no accident.
        is_newest_first: whether the dates run backwards.
        senders: what stands before a message, as written.
        names: everybody who writes.
        placeholders: texts in place of files, in a language that the patterns need not cover.
        is_group: whether a notice speaks of a group.
    """

    form: str
    places: DatePlaces
    misfits: int
    is_newest_first: bool
    senders: SenderNames
    names: frozenset[str]
    placeholders: frozenset[str]
    is_group: bool


class WhatsAppReader:
    """Reads one chat. Times are local, without a zone, and are read in the owner's zone."""

    name = "whatsapp"
    accepts = "WhatsApp chat export (the zip or its _chat.txt)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether the first line begins like a message of either form, and one has a sender or is WhatsApp's notice."""
        if not tree.is_file:
            return False
        head = decode_head(tree.head(tree.files()[0], _SNIFFED))
        lines = head.translate(_BLANKS).splitlines()
        if not lines or (form := _form(lines[0])) is None or is_chat_text(head):
            return False
        texts = [line[match.end() :] for line in lines if (match := _HEADS[form].match(line))]
        return any(_SENDER.match(text) or _ENCRYPTED.search(text) for text in texts)

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message and system line of the chat."""
        file = tree.files()[0]
        survey = _survey(tree, file)
        if survey.misfits:
            tree.report_bad(file, tr("dates"), dates_do_not_fit(survey.misfits))
            return
        chat = TextChat("whatsapp", _title(tree.label), survey.names, "group" if survey.is_group else None)
        records = _text_records(tree, file, survey)
        yield from chat.messages(tree, file, records, is_newest_first=survey.is_newest_first)


def _text_records(tree: SourceTree, file: str, survey: _Survey) -> Iterator[TextRecord]:
    """The second pass."""
    for number, match, text in _records(tree, file, survey.form):
        sender, body = _split(text, survey.senders)
        mark, body = _mark(sender, body, survey.placeholders)
        try:
            sent_at = _time(match, survey.places)
        except ValueError as error:
            tree.report_bad(file, tr("line {number}", number=number), error)
            continue
        yield TextRecord(number, sent_at, sender, body, mark)


def _form(line: str) -> str | None:
    """The form in which a line begins a message, if it does."""
    return next((form for form, head in _HEADS.items() if head.match(line)), None)


def _records(tree: SourceTree, file: str, form: str) -> Iterator[tuple[int, re.Match[str], str]]:
    """Yields (line number, stamp, text) of every message; other lines continue the message before.

    A line may begin with a date that somebody typed: only a complete stamp in the file's own form begins a message.
    """

    def parse_head(raw: str) -> tuple[re.Match[str], str] | None:
        line = raw.translate(_BLANKS)
        match = _HEADS[form].match(line)
        return None if match is None else (match, line[match.end() :])

    for number, (stamp, first), lines in multiline_records(tree, file, parse_head):
        yield number, stamp, "\n".join([first, *lines])


def _survey(tree: SourceTree, file: str) -> _Survey:
    """The first pass: names, the order of day and month, and placeholders."""
    head = decode_head(tree.head(file, _SNIFFED)).translate(_BLANKS)
    form = _form(head.splitlines()[0]) or "android"
    dates, names = DateSurvey(), NameSurvey(known=[_title(tree.label)], me=tree.me)
    angled: Counter[str] = Counter()
    notices: Counter[str] = Counter()
    has_am_pm = is_group = False
    for _, match, text in _records(tree.for_survey(), file, form):
        dates.add((int(match["a"]), int(match["b"]), int(match["c"])))
        has_am_pm = has_am_pm or match["after"] in ("AM", "PM")
        stripped = text.lstrip(_DIRECTION_MARKS)
        names.add(stripped)
        sender = _SENDER.match(stripped)
        body = text if sender is None else stripped[sender.end() :]
        # The app writes notices in the name of a group or its members too; those alone make nobody a speaker.
        if sender is not None and _is_notice(body):
            notices[stripped[: sender.end()].rstrip(": ")] += 1
            is_group = is_group or is_group_notice(body.translate(_CLEAN))
        elif sender is None:
            is_group = is_group or is_group_notice(body.translate(_CLEAN))
        if (_ANGLED.fullmatch(body) or body == _NOTHING) and (body in angled or len(angled) < _MAX_ANGLED):
            angled[body] += 1
    counts = names.names()
    senders = SenderNames([name for name in counts if not _begins_notice(name, names, counts)])
    places = dates.places(MONTH_FIRST if has_am_pm and "/" in head[:40] else DAY_FIRST)
    return _Survey(
        form,
        places,
        dates.misfits(places),
        dates.is_newest_first(places),
        senders,
        frozenset(_clean_name(name) for name in senders.names if counts[name] > notices[name]) - {""},
        frozenset(text for text, count in angled.items() if count >= _MIN_PLACEHOLDER_COUNT),
        is_group,
    )


def _begins_notice(name: str, names: NameSurvey, counts: dict[str, int]) -> bool:
    """Whether what stands before a colon is the beginning of a notice such as `Tom changed the subject to "a: b"`.

    A text with an open quotation mark is a name only if it recurs, or occurs elsewhere; so is a sentence that begins
    with the name of somebody who writes.
    """
    if names.is_known(name):
        return False
    words = name.split(" ")
    is_about_writer = any(counts.get(" ".join(words[:end]), 0) > 1 for end in range(1, len(words)))
    if any(sum(map(name.count, pair)) % 2 for pair in _QUOTES):
        return counts[name] < _MIN_PLACEHOLDER_COUNT or is_about_writer
    return counts[name] == 1 and is_about_writer and len(words) >= _MIN_SENTENCE_WORDS


def _time(match: re.Match[str], places: DatePlaces) -> datetime:
    """The local time of a stamp. Raises ValueError for an impossible one."""
    day = local_date((int(match["a"]), int(match["b"]), int(match["c"])), places)
    hour = hour_24(int(match["hour"]), match["after"] or match["before"])
    return datetime.combine(day, time(hour, int(match["minute"]), int(match["second"] or 0)))


def _split(text: str, senders: SenderNames) -> tuple[str, str]:
    """Sender and body; a system line has no sender."""
    parts = senders.split(text.lstrip(_DIRECTION_MARKS))
    return ("", text) if parts is None else (_clean_name(parts[0]), parts[1])


def _clean_name(name: str) -> str:
    return name.translate(_CLEAN).strip().removeprefix("~").strip()


def _is_notice(body: str) -> bool:
    """Whether the body is a notice of the app, not a placeholder of something that was sent."""
    text = body.translate(_CLEAN).strip()
    if not body.startswith("\u200e") or _DELETED.fullmatch(text):
        return False
    return bool(_ENCRYPTED.search(text)) or not (
        _MEDIA.match(text) or _BY_APP.match(body) or _PLACEHOLDER_AT_END.search(body)
    )


def _mark(sender: str, body: str, placeholders: frozenset[str]) -> tuple[Mark, str]:
    """The mark of a message, and its body without what the app adds."""
    text = _EDITED.sub("", body)
    first, _, rest = text.translate(_CLEAN).strip().partition("\n")
    clean = f"{first}\n{rest}".strip()
    if not sender or _POLL.match(clean) or _CALL.match(clean):
        return Mark.SERVICE, clean
    if _DELETED.fullmatch(clean):
        return Mark.DELETED, clean
    if _MEDIA.fullmatch(first.strip()) or body.strip() in placeholders:
        caption = rest.strip()  # for a document, its name once more
        caption = "" if first.strip().startswith(f"{caption} (") else caption
        return Mark.STICKER if _STICKER.match(first) and not rest else Mark.MEDIA, caption
    if attached := _BY_APP.search(text) or _PLACEHOLDER_AT_END.search(text):
        return Mark.MEDIA, _caption(text[: attached.start()])
    return Mark.SERVICE if _is_notice(body) else Mark.NONE, clean


def _caption(text: str) -> str:
    """The caption of a file; empty if it is only the file's name."""
    caption = text.translate(_CLEAN).strip()
    return "" if _FILE.match(caption) else caption


def _title(label: str) -> str:
    """The name of the other person or group, if the file or its folder has it."""
    for part in reversed(label.split("/")):
        for pattern in _TITLES:
            if match := pattern.search(part):
                return match["name"].strip()
    return ""
