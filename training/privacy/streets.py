"""Finds street addresses: English, German and Chinese ones. Full-width digits must have been folded to ASCII."""

import re
from collections.abc import Iterator

from training.privacy.secret_span import SecretSpan

_STREET = re.compile(
    r"(?<![0-9A-Za-z.,$€£#-])[1-9][0-9]{0,4}[A-Za-z]?,? (?:[NSEW]\.? |North |South |East |West )?"
    r"(?:(?!(?:Min|Minute|Minutes|Hour|Hours|Mile|Miles|Day|Star|Way|Lane)\b)"
    r"(?:[0-9]{1,3}(?:st|nd|rd|th) |[A-Z][A-Za-z'’-]+ ){1,3}"
    r"(?:[Ss]treet|St|[Aa]venue|Ave|[Rr]oad|Rd|[Bb]oulevard|Blvd|[Ll]ane|Ln|[Dd]rive|Dr|Court|Ct|Place|Pl|Terrace|Square"
    r"|Parkway|Pkwy|Highway|Hwy|Crescent|Way|Close)"
    r"|(?!(?:way|lane|mph|kph|kmh|miles?|feet|foot|hours?|minutes?|days?|person|dirt|busy|the|this|that|other|more|of|on|in|to|a)\b)"
    r"[a-z]{3,16} (?:street|avenue|boulevard|road|lane))\b\.?"
    r"(?:,? (?:[Aa]pt|[Aa]partment|[Ss]uite|Ste|[Uu]nit|[Ff]lat|[Ff]loor|[Rr]oom)\.? ?#?[0-9A-Za-z-]{1,6}\b"
    r"|,? #[0-9A-Za-z-]{1,6})?"
    r"(?:,? (?:[A-Z][a-z]+ ?){1,3},? [A-Z]{2} [0-9]{5}(?:-[0-9]{4})?)?",
    re.ASCII,
)
_BOX = re.compile(r"(?<![A-Za-z])P\.? ?O\.? Box ([0-9]{1,6})(?![0-9])", re.ASCII | re.IGNORECASE)
_CN_NUMBER = "[0-9一二三四五六七八九十百零〇]{1,6}"
_CN_ROOM = rf"(?:[甲乙丙]|之{_CN_NUMBER}|[-－][0-9]{{1,4}})?(?:号楼|号院|弄|号|栋|幢|座|单元|层|楼|室|房|户)"
_CN_STREET = re.compile(
    r"[^\W0-9a-zA-Z_在住到去来是寄送了的市区县镇乡省我你他她它们和从给走顺逛上]{1,6}(?<![顺逛走赶迷思出半套铁网问带让公])"
    rf"(?:路|街|大道|巷|胡同|里弄)(?:[东西南北中][路街段])?{_CN_NUMBER}(?:弄|号(?![线前后放早晚上下见开去来回发截]))"
    rf"(?:{_CN_NUMBER}{_CN_ROOM}|[A-Za-z]?[0-9]{{1,4}}{_CN_ROOM}|[0-9]{{3,4}}(?![0-9]))*"
    rf"|[^\W0-9a-zA-Z_在住到去来是寄送了的市区县镇乡省我你他她它们和从给]{{2,6}}(?:小区|花园|公寓|家园|新村|苑|大厦|广场|嘉园|名邸|[一二三四五六七八九十]区)"
    rf"(?:{_CN_NUMBER}(?:号楼|栋|幢|座|单元)|[A-Za-z](?:栋|座))(?:{_CN_NUMBER}{_CN_ROOM}|[0-9]{{3,4}}(?![0-9]))*"
)


_DE_HINT = re.compile("(?:tra(?:ß|ss)e|tr|asse|llee|ussee|damm|ufer|weg|latz|ring)\\.? ?[0-9]")
_DE_STREET = re.compile(
    r"(?<![\w-])(?:"
    r"(?:[A-ZÄÖÜa-zäöü][a-zäöüß]{2,24}|(?:[A-ZÄÖÜ][a-zäöüß.]{1,20}[ -]){1,3})(?:[Ss]traße|[Ss]trasse|[Ss]tr\.?)"
    r"|[A-ZÄÖÜ][a-zäöüß]{2,20}(?:gasse|allee|chaussee|damm|ufer)"
    r"|(?:[A-ZÄÖÜ][a-zäöüß.]{2,20}[ -]){1,2}(?:Allee|Gasse|Chaussee)"
    r"|(?!(?:Heim|Hin|Rück|Um|Aus|Rad|Geh|Fuß|Schul|Arbeits|Park|Sitz|Steh|Spiel|Sport|Camping|Rast|Tennis|Fußball|Lager"
    r"|Ausbildungs|Studien|Kita|Stell|Liege|Schlaf|Ehe|Ohr|Schlüssel|Box|Tabellen|Lösungs|Bildungs|Mittel|Welt|Ess|Bau"
    r"|Stamm|Praktikums|Kindergarten|Betreuungs|Start|Ver|Be)(?:s|en)?(?:weg|platz|ring))"
    r"[A-ZÄÖÜ][a-zäöüß]{2,20}(?:weg|platz|ring))"
    r" ?(?<![a-z])[1-9][0-9]{0,2}(?: ?[a-h])?(?![0-9A-Za-z,.:]*[0-9A-Za-zäöüß%€])"
    r"(?! ?(?:Min|Std|Stunde|Tag|Uhr|Euro|EUR|[Mm]al\b|[Kk]m\b|m\b|Meter|Leute|Prozent|Mio|Jahre|Wochen|Monate|Punkte"
    r"|€|%))"
    r"(?:,? (?:D-)?[0-9]{5}(?= [A-ZÄÖÜ][a-zäöüß]))?"
)


def find_streets(text: str) -> Iterator[SecretSpan]:
    """English, German and Chinese addresses with at least a street and a house number."""
    for match in _DE_STREET.finditer(text) if _DE_HINT.search(text) else ():
        yield SecretSpan(match.start(), match.end(), "address", "de_street")
    for match in _STREET.finditer(text):
        yield SecretSpan(match.start(), match.end(), "address", "street")
    for match in _BOX.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "address", "number")
    if not text.isascii():
        for match in _CN_STREET.finditer(text):
            yield SecretSpan(match.start(), match.end(), "address", "cn_street")
