"""Recognizes by the notices of an app that a chat is a group, in which only two people may happen to have written."""

import re
from collections.abc import Collection

_QUOTED = re.compile('["“”„«»「『][^"“”„«»「」『』\n]*["“”«»」』]')

_GROUP = re.compile(
    r"\b(?:groups?|gruppe|grupo|groupe|gruppo|groep|grupp(?:en)?|gruppen|ryhmä\w*|gru[pb]\w*|skupin\w*|csoport\w*|nhóm)\b"
    r"|групп|ομάδα|مجموعة|المجموعة|קבוצה|הקבוצה|समूह|ग्रुप|กลุ่ม|群(?:組|组|聊)?|グループ|그룹"
    r"|\bcommunity\b",
    re.IGNORECASE,
)
_PEOPLE = re.compile(
    r"\b(?:added|removed|left|joined using|joined from|was added|were added|was removed|invited)\b"
    r"|\b(?:hinzugefügt|entfernt|verlassen|beigetreten)\b|\b(?:añadió|agregó|eliminó a|salió|te añadió|se unió)\b"
    r"|\b(?:a ajouté|a été ajouté|a retiré|est parti|a quitté|a rejoint)\b|\b(?:adicionou|removeu|saiu|entrou usando)\b"
    r"|\b(?:ha aggiunto|ti ha aggiunto|ha rimosso|ha abbandonato|è uscit[oa])\b"
    r"|\b(?:heeft .{1,80} (?:toegevoegd|verwijderd)|is toegevoegd|heeft .{0,20}verlaten)\b"
    r"|добавил|добавлен|удалил|покинул|вышел|вышла|\b(?:dodał|dodała|usunął|usunęła|opuścił|opuściła|wyszedł)\b"
    r"|\b(?:ekledi|eklendi|çıkardı|ayrıldı|katıldı)\b|\b(?:menambahkan|ditambahkan|mengeluarkan)\b"
    r"|(?<!panggilan )\bkeluar$"
    r"|\b(?:lade till|tog bort|lämnade|tilføjede|fjernede|forlod|la til|fjernet|forlot|lisäsi|poisti|lähti)\b"
    r"|添加了|将.{1,80}(?:加入|移除)|已?退出|已?离开|加入了|新增了|移除了|邀请|邀請"
    r"|(?:を追加|を削除|が退出|が参加|を招待)しました|(?:추가|내보냈|나갔|초대|참여|들어왔)"
    r"|أضاف|أزال|غادر|انضم|הוסיף|הוסיפה|הוספת|הסיר|יצא|יצאה|הצטרף|जोड़ा|छोड़|निकाला|đã thêm|đã rời|เพิ่ม|ออกจาก",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"[+\d\s().\-\u2010-\u2015]{5,}")
_MAX_LENGTH = 300


def is_group_notice(text: str) -> bool:
    """Whether a notice, a line that nobody wrote, speaks of a group, or of people who come and go."""
    words = _QUOTED.sub("", text[:_MAX_LENGTH])
    if ": " in words:  # may be a message whose writer was not recognized
        return False
    return bool(_GROUP.search(words) or _PEOPLE.search(words))


def is_named_after(title: str, names: Collection[str]) -> bool:
    """Whether a chat's title is one of the people in it. File names lack some characters, and may be cut."""
    wanted = _plain(title)
    if not wanted or "@" in title or _NUMBER.fullmatch(title):
        return True
    return any(name.startswith(wanted) or wanted.startswith(name) for name in map(_plain, names) if name)


def _plain(name: str) -> str:
    return _LETTERS.sub("", name).casefold()
