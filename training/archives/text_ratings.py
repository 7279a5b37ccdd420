"""How much sense a text makes in an encoding: letters that follow each other as in words, frequent characters."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Protocol

PLAUSIBLE = 0.5
"""A rating from which a text is not nonsense."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")


class _Script(Protocol):
    """Rates a text from 0 (nonsense) to 1, by its characters that are not ASCII."""

    def __call__(self, text: str, data: bytes) -> float: ...


def likeliest_encoding(sample: bytes, among: Iterable[str] | None = None) -> str | None:
    """The encoding in which a sample makes the most sense, the first of equals; None if it is nonsense in all."""
    if _NOT_ASCII.search(sample) is None:
        return None
    rated = {encoding: rating(sample, encoding) for encoding in among or _SCRIPTS}
    best = max(rated, key=rated.__getitem__)
    return best if rated[best] >= PLAUSIBLE else None


def rating(sample: bytes, encoding: str) -> float:
    """How much sense a sample makes in an encoding, from 0 to 1."""
    return _SCRIPTS[encoding](sample.decode(encoding, "replace"), sample)


# Latin, Cyrillic, Greek: one byte a character, so that nearly everything can be read, and how letters follow each other
# tells nonsense from words.

_SIGNS = "“”„‚‘’–—…€£¥§°«»¡¿·•™©®ªº½¼¾²³×±µ´‹›†\xa0"
_OUTSIDE = re.compile(r"[^\x00-\x7f]")
_WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøœùúûüßšžÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜŠŽŸ"
_CENTRAL = "áâăäćçčďđéęëěíîłľĺńňóôőöŕřśšşţťúůűüýźżžąÁÂĂÄĆÇČĎĐÉĘËĚÍÎŁĽĹŃŇÓÔŐÖŔŘŚŠŞŢŤÚŮŰÜÝŹŻŽĄß"


class _Latin:
    """Words of ASCII with a few other letters among them.

    Args:
        letters: usual letters.
        rare: letters that are usual in few languages, which count a little less.
    """

    def __init__(self, letters: str, rare: str = "") -> None:
        known = letters + rare
        lower = "a-z" + "".join(char for char in known if char.islower())
        upper = "".join(char for char in known if char.isupper())
        inner = re.escape(_SIGNS.replace("’", "").replace("·", "").replace("‘", "").replace("\xa0", ""))
        self._odd = re.compile(
            rf"[^\x00-\x7f]{{4,}}|(?<=[{lower}])[{upper}]|(?<=[A-Za-z{known}])[{inner}](?=[A-Za-z{known}])"
            rf"|[^\x00-\x7f{known}{re.escape(_SIGNS)}]"
        )
        self._strange = re.compile(rf"(?<![A-Za-z{known}])[{known}]{{2,}}(?![A-Za-z{known}])")
        self._only_signs = re.compile(rf"[{re.escape(_SIGNS)}]+")
        self._rare = re.compile(f"[{rare}]") if rare else None

    def __call__(self, text: str, data: bytes) -> float:
        count = len(_OUTSIDE.findall(text))
        if not count:
            return 0
        odd: float = sum(
            len(run) for run in self._odd.findall(text) if not self._only_signs.fullmatch(run) or len(run) == 1
        )
        odd += 0.6 * sum(len(word) for word in self._strange.findall(text) if len(word) < 4)
        rare = len(self._rare.findall(text)) * 0.2 if self._rare else 0
        return max(0.0, 1 - (odd + rare) / count)


class _Alphabet:
    """Words of another alphabet.

    Args:
        letters: the small ones.
        frequent: those of which most texts have two fifths.
    """

    def __init__(self, letters: str, frequent: str) -> None:
        every = letters + letters.upper()
        self._letters = re.compile(f"[{every}]")
        self._upper = re.compile(f"[{letters.upper()}]")
        self._frequent = re.compile(f"[{frequent}]", re.IGNORECASE)
        self._known = re.compile(f"[{every}{re.escape(_SIGNS)}№]")
        inner = re.escape(_SIGNS.replace("’", "").replace("\xa0", ""))
        self._odd = re.compile(
            f"[A-Za-z][{every}]|[{every}][A-Za-z]|[{letters}][{letters.upper()}]|[{every}][{inner}](?=[{every}])"
        )

    def __call__(self, text: str, data: bytes) -> float:
        count, letters = len(_OUTSIDE.findall(text)), len(self._letters.findall(text))
        if not letters:
            return 0
        rating = (len(self._known.findall(text)) - 2 * len(self._odd.findall(text))) / count
        if len(self._frequent.findall(text)) < 0.4 * letters:
            rating *= 0.5
        if len(self._upper.findall(text)) > 0.7 * letters:
            rating *= 0.8
        return max(0.0, rating)


# East Asian: two bytes a character. Nonsense is made of rare characters.

_HANZI = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学"
    "如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将"
    "两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及"
    "比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统"
    "区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共"
    "确传师观清今切院让识候带导争运笑飞风步改收根干造言联持组每济车亲极林服快办议往元英士证近失转夫令准布始怎呢存未远叫台单影具罗字爱击流"
    "吗吧啊哈哦嗯早晚茶喝吃饭睡谢请您咱啦呀嘿图片表撤消息群聊天记录昵称"
)
_HANZI_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作里用道行所然家種事成方多經麼去法學"
    "如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將"
    "兩高間由問很最重並物手應向頭文體政美相見被利什二等產或新己制身果加西月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及"
    "比員解水名真論處走義各入幾口認條平系氣題活更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直資命山金指許統"
    "嗎吧啊哈哦嗯早晚茶喝吃飯睡謝請您啦呀圖片貼訊息聊記錄裡週點"
)
_HANGUL = (
    "이다는을의에가고하지한로기은도사리어나자를시아서인대있스정라그일니해게만수부보요여들전면상거소장원주제으안세었과없오아무방모성치와구"
    "ㅋㅎㅠㅜ조국신우것때경미비연내습동공유마말했문중위적물회분생간생학네녕응야죠까래데좋같진싶겠됐돼갈볼오늘"
)
_KANA_AND_KANJI = (
    "".join(map(chr, range(0x3041, 0x3094)))
    + "".join(map(chr, range(0x30A1, 0x30F7)))
    + "ー日本人年月時分今何私行来見会言出気思大小上下中前後好食飲茶明昨電話送信写真通知退出参加午前後曜火水木金土"
)


class _Ideographs:
    """Characters of two bytes.

    Args:
        encoding: the encoding.
        frequent: characters of which texts mostly consist.
        common: ranges of lead bytes of common characters.
        signs: range of lead bytes of punctuation.
        self_evident: matches bytes that are characters in this encoding only.
    """

    def __init__(
        self,
        encoding: str,
        frequent: str,
        common: range,
        signs: Sequence[int],
        self_evident: re.Pattern[bytes] | None = None,
    ) -> None:
        self._encoding = encoding
        self._frequent = frequent
        self._common = common
        self._signs = signs
        self._self_evident = self_evident

    def __call__(self, text: str, data: bytes) -> float:
        weights = _weights(self._encoding, self._frequent, self._common, self._signs)
        outside = _OUTSIDE.findall(text)
        evident = len(self._self_evident.findall(data)) if self._self_evident is not None else 0
        rated = sum(weights.get(char, 0.0) for char in outside) + evident - 3 * text.count("\ufffd")
        return max(0.0, min(1.0, rated / len(outside))) if outside else 0.0


@cache
def _weights(encoding: str, frequent: str, common: range, signs: Sequence[int]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for leads, weight in ((common, 0.3), (signs, 1.0)):
        for lead in leads:
            for trail in range(0x40, 0xFF):
                with suppress(UnicodeDecodeError):
                    character = bytes((lead, trail)).decode(encoding)
                    if len(character) == 1 and not 0xE000 <= ord(character) < 0xF900:
                        weights[character] = weight
    return {**weights, **dict.fromkeys(frequent, 1.0)}


LATIN = {
    "cp1252": _Latin(_WESTERN, "ýþðÝÞÐ"),
    "cp1250": _Latin(_CENTRAL, "ţŢđĐ"),
    "cp1254": _Latin("âçğıîöşûüÂÇĞİÎÖŞÛÜ"),
}
_SCRIPTS: dict[str, _Script] = {
    "gb18030": _Ideographs(
        "gb18030",
        _HANZI,
        range(0xB0, 0xD8),
        (0xA1, 0xA2, 0xA3, 0xA6, 0xA7, 0xA8, 0xA9),
        re.compile(rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]"),
    ),
    "big5": _Ideographs("big5", _HANZI_TRADITIONAL, range(0xA4, 0xC7), range(0xA1, 0xA4)),
    "cp932": _Ideographs("cp932", _KANA_AND_KANJI, range(0x88, 0x99), range(0x81, 0x82)),
    "cp949": _Ideographs("cp949", _HANGUL, range(0xB0, 0xC9), range(0xA1, 0xA4)),
    "euc_jp": _Ideographs("euc_jp", _KANA_AND_KANJI, range(0xB0, 0xD0), range(0xA1, 0xA4)),
    **LATIN,
    "cp1251": _Alphabet("абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґў", "оеаинтсрвл"),
    "koi8-r": _Alphabet("абвгдежзийклмнопрстуфхцчшщъыьэюяё", "оеаинтсрвл"),
    "cp1253": _Alphabet("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ", "αοιετσνηρ"),
}
"""By encoding, the surest ones first: of equally likely ones the first is taken."""
