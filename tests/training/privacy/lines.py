"""Messages with made-up secrets of every kind, and ordinary ones that look a little like them."""

import random
import re
import string
from collections.abc import Callable
from importlib import import_module

from phonenumbers import (
    PhoneNumberFormat,
    PhoneNumberType,
    example_number_for_type,
    format_number,
    is_valid_number,
    parse,
)
from stdnum import iban as iban_number
from stdnum import luhn
from stdnum.iso7064 import mod_11_2

from doppel.config import PrivateKind

# Made-up secrets -----------------------------------------------------------------------------------------------------


def digits(dice: random.Random, count: int) -> str:
    return "".join(dice.choices(string.digits, k=count))


def letters(dice: random.Random, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(dice.choices(alphabet, k=count))


def card(dice: random.Random, lead: str, count: int) -> str:
    body = lead + digits(dice, count - len(lead) - 1)
    return next(body + last for last in string.digits if luhn.is_valid(body + last))


def cn_id_spaced(dice: random.Random) -> str:
    number = cn_id(dice)
    return f"{number[:6]} {number[6:14]} {number[14:]}"


def cn_id(dice: random.Random) -> str:
    day = f"{dice.randint(1950, 2010)}{dice.randint(1, 12):02}{dice.randint(1, 28):02}"
    body = f"{dice.choice(['110105', '310115', '440305', '510107', '330106'])}{day}{digits(dice, 3)}"
    return next(body + last for last in "0123456789X" if mod_11_2.is_valid(body + last))


def iban(dice: random.Random) -> str:
    country, count = dice.choice([("DE", 18), ("NL", 14), ("AT", 16), ("ES", 20), ("CH", 17), ("PL", 24)])
    rest = digits(dice, count) if country != "NL" else "ABNA" + digits(dice, 10)
    return next(
        full
        for check in range(2, 99)
        if iban_number.is_valid(full := f"{country}{check:02}{rest}", check_country=False)
    )


def spaced(text: str) -> str:
    return " ".join(text[place : place + 4] for place in range(0, len(text), 4))


def ssn(dice: random.Random) -> str:
    return f"{dice.randint(1, 665):03}-{dice.randint(1, 99):02}-{dice.randint(1, 9999):04}"


def ipv4(dice: random.Random) -> str:
    lead = dice.choice([5, 46, 93, 142, 178, 221])
    return f"{lead}.{dice.randint(1, 255)}.{dice.randint(0, 255)}.{dice.randint(1, 254)}"


def ipv6(dice: random.Random) -> str:
    return "2a02:" + ":".join(f"{dice.randint(4096, 65535):x}" for _ in range(7))


def email(dice: random.Random) -> str:
    name = letters(dice, dice.randint(3, 9), string.ascii_lowercase) + dice.choice(["", ".w", "_99", "+shop"])
    return f"{name}@{dice.choice(['gmail.com', 'qq.com', '163.com', 'mail.tu-berlin.de', 'corp.co.uk'])}"


def password(dice: random.Random) -> str:
    return letters(dice, 5) + dice.choice("!#$%&*") + digits(dice, 3) + letters(dice, 2)


def us_phone(dice: random.Random) -> str:
    area, office, line = dice.choice(["415", "212", "646", "303"]), dice.randint(220, 999), digits(dice, 4)
    return dice.choice(["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1 {} {} {}", "1-{}-{}-{}"]).format(area, office, line)


def cn_mobile(dice: random.Random) -> str:
    number = dice.choice(["138", "139", "150", "177", "186", "199"]) + digits(dice, 8)
    split = f"{number[:3]}{{0}}{number[3:7]}{{0}}{number[7:]}"
    plain = [number, split.format(" "), split.format("-"), split.format(".")]
    return dice.choice([*plain, f"+86 {number}", f"+86{number}", f"+86-{split.format('-')}", f"(+86){number}"])


def cn_landline(dice: random.Random) -> str:
    return f"{dice.choice(['010', '021', '0755', '0571'])}-{dice.randint(2, 8)}{digits(dice, 7)}"


def eu_phone(dice: random.Random) -> str:
    forms = ["+49 171 {}", "+44 7911 {}", "+33 6 {}", "0049 171 {}", "0171 {}", "+49 (0)30 {}", "+49-30-{}"]
    return dice.choice(forms).format(dice.choice("23456789") + digits(dice, 6))


def street(dice: random.Random) -> str:
    name = dice.choice(["Baker Street", "Oak Avenue", "Maple Dr", "Elm St", "Sunset Boulevard", "Old Mill Road"])
    return f"{dice.randint(2, 999)} {name}{dice.choice(['', ', Apt 4B', ', Springfield, IL 62704'])}"


def de_street(dice: random.Random) -> str:
    """The sort of street is no secret; its name and number are."""
    names = [
        "Hauptstraße",
        "Lindenweg",
        "Berliner Straße",
        "Bergstr.",
        "Karl-Marx-Allee",
        "Rathausplatz",
        "Kurfürstendamm",
    ]
    return f"{dice.choice(names)} {dice.randint(1, 199)}{dice.choice(['', 'a', ', 10115 Berlin'])}"


def ni_number(dice: random.Random) -> str:
    lead, numbers = dice.choice(["AB", "JG", "CE", "PX"]), [digits(dice, 2) for _ in range(3)]
    return dice.choice(["{}{}{}{}{}", "{} {} {} {} {}"]).format(lead, *numbers, dice.choice("ABCD"))


def spelt_email(dice: random.Random) -> str:
    name, host = email(dice).split("@")
    form = dice.choice(["{} [at] {}", "{}(at){}", "{} (at) {}", "{} [at] {}", "{}[@]{}"])
    return form.format(name, host.replace(".", dice.choice([".", " [dot] ", "(dot)"])))


def scrambled(dice: random.Random) -> str:
    return letters(dice, 24, string.ascii_letters)


def cn_street(dice: random.Random) -> str:
    road = dice.choice(["建国路", "文三路", "中山大道", "南京东路", "解放街", "槐树胡同"])
    return f"{road}{dice.randint(2, 999)}号{dice.choice(['', f'{dice.randint(1, 9)}号楼{dice.randint(101, 2500)}室'])}"


def cn_estate(dice: random.Random) -> str:
    name = dice.choice(["阳光花园", "翠湖小区", "金色家园", "滨江公寓"])
    return f"{name}{dice.randint(1, 30)}栋{dice.randint(1, 4)}单元{dice.randint(101, 2500)}室"


def cn_block(dice: random.Random) -> str:
    name = dice.choice(["望京西园三区", "方庄芳城园一区", "天通苑北五区"])
    return f"{name}{dice.randint(1, 400)}号楼{dice.randint(1, 6)}单元{dice.randint(101, 2500)}"


def aws_secret(dice: random.Random) -> str:
    parts = [letters(dice, count) for count in (13, 8, 14)]
    return "/".join(("A7b", *parts))[:40].ljust(40, "Q")


def key_block(dice: random.Random) -> str:
    body = "\n".join(letters(dice, 64) for _ in range(3))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"


def hex_token(dice: random.Random) -> str:
    return letters(dice, 40, "0123456789abcdef")


def token(*leads: str, count: int = 36) -> Callable[[random.Random], str]:
    return lambda dice: dice.choice(leads) + letters(dice, count - 2) + digits(dice, 2)


def jwt(dice: random.Random) -> str:
    return f"eyJ{letters(dice, 20)}.eyJ{letters(dice, 40)}.{letters(dice, 43)}"


def bot_token(dice: random.Random) -> str:
    return f"{dice.randint(10**8, 10**10 - 1)}:AA{letters(dice, 33)}"


def aws(dice: random.Random) -> str:
    return "AKIA" + letters(dice, 16, string.ascii_uppercase + string.digits)


def code(count: int) -> Callable[[random.Random], str]:
    return lambda dice: str(dice.randint(1, 9)) + digits(dice, count - 1)


def valid(module: str, *templates: str) -> Callable[[random.Random], str]:
    """Fills `#` with digits, `?` with capitals and `*` with either until `stdnum` finds nothing wrong."""
    is_valid = import_module(f"stdnum.{module}").is_valid

    def make(dice: random.Random) -> str:
        template = dice.choice(templates)
        while True:
            number = "".join(_FILLINGS[sign](dice) if sign in _FILLINGS else sign for sign in template)
            if is_valid(number):
                return number

    return make


_FILLINGS: dict[str, Callable[[random.Random], str]] = {
    "#": lambda dice: dice.choice(string.digits),
    "?": lambda dice: dice.choice(string.ascii_uppercase),
    "*": lambda dice: dice.choice(string.ascii_uppercase + string.digits),
}


def filled(*templates: str) -> Callable[[random.Random], str]:
    """Fills `#`, `?` and `*`."""
    return lambda dice: "".join(_FILLINGS[sign](dice) if sign in _FILLINGS else sign for sign in dice.choice(templates))


def snils(dice: random.Random) -> str:
    number = "".join(dice.choices(string.digits, k=9))
    check = sum((9 - place) * int(digit) for place, digit in enumerate(number)) % 101 % 100
    return f"{number[:3]}-{number[3:6]}-{number[6:]} {check:02}"


def phone_of(region: str) -> Callable[[random.Random], str]:
    """A mobile number of a country as it is written there."""

    def make(dice: random.Random) -> str:
        example = str(example_number_for_type(region, PhoneNumberType.MOBILE).national_number)
        while True:
            number = parse(example[:4] + digits(dice, len(example) - 4), region)
            if is_valid_number(number):
                return format_number(number, PhoneNumberFormat.NATIONAL)

    return make


def wechat_id(dice: random.Random) -> str:
    return letters(dice, 4, string.ascii_lowercase) + dice.choice(["_", "-", ""]) + digits(dice, 4)


Maker = Callable[[random.Random], str]
PLANTED: list[tuple[PrivateKind, Maker, tuple[str, ...]]] = [
    ("email", email, ("mail me at {} ok?", "邮箱是{}，发我", "{}")),
    ("email", spelt_email, ("write to {}", "{}", "邮箱 {}")),
    ("email", lambda dice: digits(dice, 9) + "#qq.com", ("{} 把#换成@",)),
    ("id", ni_number, ("my NI is {}", "{}", "national insurance number {}")),
    ("token", scrambled, ("the token is {}", "api key {}", "密钥 {}", "secret: {}")),
    ("phone", us_phone, ("call me {} tonight", "my cell: {}", "打{}找我")),
    ("phone", cn_mobile, ("我电话{}", "{} 这是我的号", "加我微信，同号{}，谢谢", "his number is {}.")),
    ("phone", cn_landline, ("公司电话 {}", "office {} ask for me", "座机：{}")),
    ("phone", eu_phone, ("new number {}", "{} is my handy", "打{}吧")),
    ("id", cn_id, ("身份证号 {}", "my id is {}", "{}，帮我订票")),
    ("id", cn_id_spaced, ("{}", "身份证 {} 帮我买票")),
    (
        "id",
        lambda dice: dice.choice("EG") + digits(dice, 8),
        ("护照号{}", "passport no. {}", "my passport number is {}"),
    ),
    ("card", lambda dice: "6222 " + spaced(digits(dice, 15)), ("工行卡 {}", "银行卡号是{}")),
    ("id", ssn, ("ssn {}", "my social is {} dont share", "社保号{}")),
    ("card", lambda dice: card(dice, "4", 16), ("card {}", "卡号{}谢谢", "pay with {} exp 04/27")),
    ("card", lambda dice: spaced(card(dice, "5424", 16)), ("use {} pls", "信用卡 {}", "{}")),
    ("card", lambda dice: card(dice, "622588", 19), ("打到这个卡 {}", "my account {}", "银行卡{}招商")),
    ("iban", iban, ("IBAN {}", "send it to {} thanks", "账户{}")),
    ("iban", lambda dice: spaced(iban(dice)), ("IBAN: {}", "{} AND HURRY", "转到 {} 就行")),
    ("ip", ipv4, ("ssh root@{}", "server is {} now", "服务器{}挂了")),
    ("ip", ipv6, ("ping {}", "地址是{}", "my v6 {} works")),
    ("token", token("sk-", "sk-ant-", "sk-proj-"), ("export OPENAI={}", "key在这 {}", "{}")),
    ("token", token("ghp_", "gho_", "github_pat_", "glpat-"), ("use {}", "令牌：{}", "git clone with {}")),
    ("token", token("xoxb-", "hf_", "npm_", "AIza", "gsk_"), ("here {}", "token {}", "用这个{}")),
    ("token", aws, ("aws {}", "密钥 {} 别外传", "{}")),
    ("token", aws_secret, ("{}", "aws_secret_access_key={}", "密钥{}")),
    ("token", token("", count=40), ("AccountKey={};EndpointSuffix=x", "webhook secret: {}")),
    ("token", jwt, ("Authorization: Bearer {}", "jwt {}", "登录态{}")),
    ("token", bot_token, ("bot token {}", "机器人 {}", "{}")),
    ("token", key_block, ("here is it\n{}", "私钥：{}", "{}")),
    ("token", hex_token, ("api_key={}", "秘钥是{}", "look {} ok")),
    ("token", token("", count=40), ("secret: {}", "{}", "这个 {} 存好")),
    ("password", password, ("password: {}", "密码是{}", "my pw is {}", "wifi密码 {}", "pwd={}")),
    (
        "password",
        password,
        ("passwort ist {}", "contraseña: {}", "mot de passe : {}", "パスワードは{}です", "비밀번호 {}"),
    ),
    ("password", code(6), ("验证码{}", "verification code: {}", "{} is your Example code", "otp is {}", "密码：{}")),
    ("url", password, ("https://root:{}@db.corp.net/x", "postgres://app:{}@10.1.2.3/main 连这个")),
    ("url", token("", count=20), ("https://corp.net/cb?a=1&access_token={}", "看 https://x.cn/reset?token={} 点开")),
    ("url", token("", count=16), ("join https://t.me/+{}", "discord.gg/{} 进来", "https://chat.whatsapp.com/{}")),
    ("url", code(10), ("https://us02web.zoom.us/j/{}", "会议 https://meeting.tencent.com/p/{}")),
    ("address", street, ("I live at {}", "{} come by", "寄到 {}")),
    ("address", de_street, ("ich wohne {}", "{}", "schick es an {}, danke")),
    ("address", cn_street, ("我家住{}", "寄到杭州市西湖区{}", "地址：{}，谢谢")),
    ("address", cn_block, ("我在{}", "寄到朝阳区{}")),
    ("address", cn_estate, ("我住{}", "快递放{}门口", "地址 {}")),
    ("phone", phone_of("RU"), ("мой номер {} звони", "запиши {} это мама", "{} перезвони как сможешь")),
    (
        "phone",
        lambda dice: f"8 ({dice.choice(['926', '916', '903'])}) {digits(dice, 3)}-{digits(dice, 2)}-{digits(dice, 2)}",
        ("{}", "call {}"),
    ),
    ("phone", phone_of("TR"), ("numaram {} ve bu akşam ara", "{} bu benim yeni numara", "ona {} diye yaz")),
    ("phone", phone_of("ES"), ("mi número es {} y no se lo des", "llama al {} que es de mi madre")),
    ("phone", phone_of("FR"), ("c'est le {} pour moi", "mon numéro est {} et c'est tout")),
    ("phone", phone_of("IT"), ("il mio numero è {} non ti dico altro", "chiama il {} che sono a casa")),
    ("phone", phone_of("BR"), ("meu número é {} não esquece", "liga no {} que eu atendo você", "zap {}")),
    ("phone", phone_of("PT"), ("o meu é o {} não te esqueças", "liga para o {} que eu não tenho rede")),
    ("phone", phone_of("IN"), ("मेरा नंबर {} है", "यह {} पर फोन करो")),
    ("phone", phone_of("JP"), ("番号は{}です", "携帯 {} にかけて")),
    ("phone", phone_of("KR"), ("내 번호는 {} 이야", "{} 로 전화해줘")),
    ("phone", phone_of("MX"), ("mi celular es {} por si no me ves",)),
    ("phone", lambda dice: f"+90 555 {digits(dice, 3)} {digits(dice, 2)} {digits(dice, 2)}", ("{}", "ara {}")),
    ("phone", lambda dice: f"+86 555 {digits(dice, 7)}", ("{}", "打{}")),
    ("email", lambda dice: f"{letters(dice, 6, string.ascii_lowercase)}@myexample.com", ("{}", "mail {}")),
    ("id", valid("br.cpf", "###.###.###-##"), ("{}", "meu cpf é {}", "CPF: {}")),
    ("id", valid("br.cpf", "###########"), ("cpf {}", "meu CPF é {}")),
    ("id", valid("es.dni", "########?"), ("mi dni es {}", "{}", "DNI {}")),
    ("id", valid("es.nie", "X#######?", "Y#######?"), ("{}", "mi nie {}")),
    ("id", valid("in_.aadhaar", "#### #### ####"), ("{}", "my aadhaar is {}", "आधार {}")),
    ("id", valid("in_.aadhaar", "############"), ("aadhaar no {}", "aadhar card number: {}")),
    ("id", valid("in_.pan", "???P?####?"), ("PAN {}", "pan card is {}")),
    ("id", snils, ("СНИЛС {}", "{}", "мой снилс {} запиши")),
    ("id", valid("ru.inn", "############"), ("ИНН {}", "мой инн: {}")),
    ("id", filled("#### ######", "## ## ######"), ("паспорт {}", "паспорт серия и номер {}")),
    ("id", filled("RSSMRA85T10A562S", "MRTMTT91D08F205J"), ("codice fiscale {}", "{}")),
    ("id", valid("fr.nir", "2 ## 07 75 ### ### ##", "1##0869########"), ("numéro de sécu {}", "{}")),
    ("id", filled("90041#-1######", "88111#-2######"), ("주민번호 {}", "{}")),
    ("id", valid("tr.tckimlik", "###########"), ("tc kimlik no {}", "TC: {}")),
    ("id", valid("pl.pesel", "8#0#1######"), ("mój pesel to {}", "PESEL: {}")),
    ("id", valid("jp.in_", "############"), ("マイナンバーは{}", "個人番号 {}")),
    ("id", filled("BOXW310820HNERXN09"), ("mi curp {}", "{}")),
    ("id", valid("cl.rut", "##.###.###-#"), ("mi rut {}", "{}")),
    ("id", valid("nl.bsn", "#########"), ("bsn {}", "mijn BSN is {}")),
    ("id", valid("be.nn", "85.07.##-###.##"), ("{}", "rijksregisternummer {}")),
    ("id", valid("se.personnummer", "85071#-####"), ("{}", "mitt personnummer {}")),
    ("id", valid("fi.hetu", "13105#-###?"), ("{}", "hetu {}")),
    ("id", valid("ch.ssn", "756.####.####.##"), ("AHV {}", "{}")),
    ("id", valid("de.idnr", "###########"), ("steuer-id {}", "meine Steueridentifikationsnummer: {}")),
    ("id", valid("gb.nhs", "### ### ####"), ("nhs number {}", "my NHS no is {}")),
    ("id", valid("ca.sin", "###-###-###"), ("my sin is {}", "SIN {}")),
    ("id", lambda dice: "wxid_" + letters(dice, 14, string.ascii_lowercase + string.digits), ("{}", "加我 {}")),
    ("id", wechat_id, ("微信号 {}", "加我微信 {}", "wechat: {}", "vx {}", "我微信是{}，加一下", "微信：{}")),
    ("id", lambda dice: str(dice.randint(10**7, 4 * 10**9)), ("QQ {}", "加我QQ{}", "扣扣：{}", "qq号{}", "我QQ是{}")),
    ("token", lambda dice: "glrt-" + letters(dice, 20), ("runner {}", "{}")),
    ("token", lambda dice: "AC" + letters(dice, 32, "0123456789abcdef"), ("twilio {}", "{}")),
    ("token", lambda dice: letters(dice, 32, "0123456789abcdef") + "-us12", ("mailchimp {}", "{}")),
    ("token", lambda dice: "sq0csp-" + letters(dice, 43), ("square {}", "{}")),
]
CONTEXTUAL = frozenset(("password", "address"))
"""Kinds without a form of their own: only the words around tell."""


def planted(rounds: int = 5) -> list[tuple[PrivateKind, str, str]]:
    """(kind, secret, message that holds it): the same ones every time."""
    dice = random.Random(7)
    rows = []
    for _ in range(rounds):
        for kind, make, frames in PLANTED:
            for frame in frames:
                secret = make(dice)
                rows.append((kind, secret, frame.format(secret)))
    return rows


def core(secret: str) -> str:
    """What of a secret must not remain: a key's body, an address' street and number."""
    if secret.startswith("-----BEGIN"):
        return secret.splitlines()[1]
    return secret


# Ordinary lines ------------------------------------------------------------------------------------------------------

FRAMES = """
that was {price} at the shop|we paid {price}, {price} with tip|it costs ${n3}.{n2} online|€{n3} for {n2} nights
see you at {time}|train leaves {time}, arrives {time}|the meeting moved from {time} to {time}|on {date} at {time}
they won {n1}-{n1}|final score {n1}:{n1}, crazy|it was {n2}-{n2} at half time|{n3}/{n3} points
upgrade to v{n1}.{n2}.{n1}|python 3.{n2}.{n1} broke it|version {n1}.{n2}.{n1}.{n2} is out|node {n2}.{n2}.{n1} lts
order {n2} x {n3}g coffee|{n3}pcs please, {n2} boxes|i need {n2} of those and {n1} more|order #{n3}{n3} arrived
lol {n3} times|{n2}% off until {date}|in {year} or {year}|1{n3},{n3},{n3} people saw it|{n3}k views
population {n3}{n3}{n3}|{year}-{year} was rough|pages {n3}-{n3}|channel {n3}, 20{n2} model|pi is 3.14159265358979
the password is wrong again|forgot my password: sorry|whats the password?|password is too short|i changed the passwords
my pin is broken|the code is {n3} lines|secret: nobody likes it|the key is practice|token of my love|pass: the salt
http://example.org/page?id={n3}|look https://en.wikipedia.org/wiki/Cat_{n3}|see youtu.be/watch at {time}
@tom come at {time}|#tag{n3} @ana|ratio 16:9 or 4:3|a/b testing {n1}/{n2}|re: {n3} - fine|std::vector<int> x{n1}
the 3 way street is closed|down the road {n2} miles|{n1} guys on the street|24 hour drive|5 Minute Drive|10 St
我买了{n2}个|一共{n3}块{n1}|¥{n3}.{n2}，打{n1}折|{n1}点{n2}分到|{year}年{n1}月{n1}号|比分{n1}比{n1}|{n1}:{n1}赢了
版本{n1}.{n2}.{n1}更新了|升级到{n1}.{n2}.{n1}.{n2}|订{n3}份，每份{n2}元|{n3}人报名|第{n3}章|{n2}路公交|坐{n2}号线
我知道{n2}号放假|走路{n2}分钟|上街{n2}次|{n1}号楼见|{n2}号前交|密码是什么|密码忘了|密码是多少来着|验证码收不到
das passwort ist falsch|le mot de passe est incorrect|passwort ist weg|three/four/five/six/seven/eight/nine/ten
客服电话400-{n3}-1{n3}|打400{n3}1{n3}问问|热线 400 820 1{n3}|call 800-{n3}-1{n3} toll free|电话8008201{n3}
heimweg dauert {n2} minuten|Heimweg {n2} Minuten|Parkplatz {n2} ist frei|um {n1} am Alexanderplatz
Umweg {n1} km|Platz {n1} für uns|Goethestraße {n1} Minuten zu Fuß|in der Straße {n2} Leute|Arbeitsplatz {n3}
die Bergstr. {n1}.5 km lang|AB {n2} {n2}|ring {n1} times
the key is getUserAuthenticationTokenFromHeader|token: ThisIsAVeryLongClassName
look at amazon dot com|meet (at) noon. ok|secret lovelovelovelovelovelove|keyboardsmashing asdfasdfasdfasdfasdfasdf
my monkey says AAAAAAAAAAAAAAAAAAAAAaaaaaaaa|#1 #qq|密码是我的生日|密码8位以上
口令记不住|房号{n3}|座位{n2}排{n2}号|快{n2}点了|{n3}{n3}播放量|销量{n3}万|订单{n3}{n3}号
заказ {n3}{n3}{n2} готов|население {n3} {n3} чел|цена {n2} {n3} руб|счёт {n1}:{n1}, победа|встреча {date} в {time}
маршрут {n3}, автобус {n2}|версия {n1}.{n2}.{n1} вышла|{n3} {n3} {n3} просмотров|с {year} по {year} год|код {n3}
трек {n3}{n3}{n3}{n2} в пути|{n2} тысяч 500 рублей|кв. {n2}, этаж {n1}|55.75{n2}, 37.61{n2}|артикул {n3}{n3}{n2}
sipariş no {n3}{n3}{n3}|fiyatı {n1}.{n3},{n2} TL|maç {n1}-{n1} bitti|saat {time} gibi|{n2} numaralı otobüs|{year} yılında
nüfusu {n2} {n3} {n3} kişi|sürüm {n1}.{n2}.{n1}|41.00{n2}, 28.97{n2}|{n3} gram un, {n2} gram tuz|takip no {n3}{n3}{n3}
pedido {n3}{n3}{n3} enviado|cuesta {n1}.{n3},{n2} euros|quedaron {n1}-{n1}|a las {time} del {date}|la línea {n2} del bus
{n1}{n3} {n3} {n3} habitantes y subiendo|versión {n1}.{n2}.{n1}|40.4{n3}, -3.70{n2}|factura {n3}{n3}{n2}|{n3} visitas
o pedido é {n3}{n3}{n3}|custou R$ {n1}.{n3},{n2}|placar {n1} a {n1}|ônibus {n3} às {time}|protocolo {n3}{n3}{n3}{n2}
{n1} {n3} {n3} pessoas|nota fiscal {n3}{n3}{n3}|-23.55{n2}, -46.63{n2}|{n3} g de farinha e {n2} ml|cupom {n3}{n2}
commande {n3}{n3}{n3} partie|ça coûte {n1} {n3},{n2} €|score {n1}-{n1}|le {date} à {time}|bus {n2} puis métro {n1}
{n2} {n3} {n3} habitants en {year}|colis {n3}{n3}{n3}{n2}|version {n1}.{n2}|48.85{n2}, 2.35{n2}|{n3} g de sucre, {n2} cl
Bestellung {n3}{n3}{n3} ist da|kostet {n1}.{n3},{n2} €|Endstand {n1}:{n1}|am {date} um {time}|Linie {n2} Richtung Mitte
{n1} {n3} {n3} Einwohner|Sendungsnummer {n3}{n3}{n3}{n2}|Version {n1}.{n2}.{n1}|52.52{n2}, 13.40{n2}|{n3} g Mehl
ordine {n3}{n3}{n3} spedito|costa {n1}.{n3},{n2} euro|è finita {n1}-{n1}|alle {time} di {date}|il {n2} passa tardi
ऑर्डर {n3}{n3}{n3} आ गया|₹{n2},{n3} लगे|स्कोर {n3}/{n1}|{time} बजे मिलते हैं|{n3} {n3} {n3} लोग|{year} में हुआ था|{n2} नंबर की बस
注文番号{n3}{n3}{n3}届いた|{n1},{n3}円でした|{n1}対{n1}で勝った|{time}に駅で|{year}年{n1}月{n1}日|{n2}番線から|第{n3}話まで見た
小麦粉{n3}g、砂糖{n2}g|バージョン{n1}.{n2}.{n1}|{n3}{n3}{n3}回再生|伝票番号 {n3}{n3}-{n3}-{n2}|35.68{n2}, 139.76{n2}
주문번호 {n3}{n3}{n3} 왔어|{n1},{n3}원이야|{n1}대{n1}로 이겼어|{time}에 만나|{year}년 {n1}월 {n1}일|{n3}번 버스|밀가루 {n3}g
조회수 {n3}{n3}{n2}회|버전 {n1}.{n2}.{n1}|37.56{n2}, 126.97{n2}|송장 {n3}{n3}{n3}{n2}|{n2}번 출구|{n3}동 {n3}호
ISBN 978-3-16-1484{n2}-{n1}|isbn 978711154{n3}{n1}|书号 978-7-111-{n3}{n2}-{n1}|#{n3}{n3}{n3}|ref {n3}-{n3}-{n3}
tracking {n3}{n3}{n3}{n3}{n2}|ticket no {n3}{n3}{n3}|order 4155{n3}{n3} shipped|invoice {year}-{n3}{n3}|ts 16{n3}{n3}{n2}
16{n3}{n3}{n2}{n3} ms|unix time 17{n3}{n3}{n2}|{n3} {n3} {n3} views|{n1} {n3} {n3} people|{n3},{n3},{n3} streams
{year} {year} {year} were good|{year}-{year}, {year}-{year}|bus {n2}, then {n3}, then {n2}|{n2}.{n2}.{n2} - {n2}.{n2}.{n2}
40.71{n2}, -74.00{n2}|lat 51.50{n3} lon -0.12{n3}|mix {n3} 200 150 50|sets {n2} {n2} {n2} {n2}|{n2}/{n2}/{n2}/{n2}
build {n3}.{n2}.{n3}.{n1}|firmware {n1}.{n1}.{n1}-{n3}|RFC 2606|ab12 {n2}|GTX {n3}{n1} vs RX {n3}{n1}|area 51 {n2}
wechat is down|wechat me later|微信支付{n2}元|微信群{n3}人|加微信群|发微信给你|加我微信吧|微信号是多少|微信 hello|vx多少|wx在吗
微信运动{n3}{n2}步|加我微信 please|qq农场{n3}级|QQ群里{n3}人|QQ {n3}人|扣扣{n2}分|qq音乐会员{n2}块|群里{n3}{n2}条消息|Q币{n3}
nie {n3} mal|never in {year}|my pan is {n2} cm|the sin of {n3} people|run {n1}.{n3} km|tin {n3} g|fin at {time}|dni {n2}
a pin of {n2} cm|pan {n3} degrees {n2} minutes|the nhs has {n3} {n3} beds|perso {n3}|pps: {n3} lines|cup {n2}/{n2}
单号{n3}{n3}{n3}{n2}|快递{n3}{n3}{n3}{n2}|订单 {n3}{n3}{n3}{n2}|{n3}{n3}{n3}元|流水 {year}{n3}{n3}{n2}|抽奖号 {n3}{n3}
"""  # noqa: E501


WRITTEN = """
8 (926) 123-45-67|8-926-123-45-67|8 926 123 45 67 звони|89261234567|+7 926 123-45-67|мой тел 9261234567
тел. 8(495)123-45-67|мой CPF: 529.982.247-25|cpf 52998224725|DNI 12345678Z|12345678Z|mi dni: 12345678-Z
nie X1234567L|X1234567L|aadhaar 2341 2341 2346|2341 2341 2346|aadhaar: 234123412346|СНИЛС 112-233-445 95
снилс 11223344595|112-233-445 95|wxid_abc123def456gh|微信号 abc_123|加我微信 abc_123|wechat: abc_123
my wechat is john_doe88|加我微信：zhangsan2020|QQ 12345678|加我QQ 123456789|扣扣 87654321|我的qq是 1234567890|QQ:12345678
qq号：987654321|企鹅号 123456789|微信：lisi-1990|加v abc12345|vx: hello_123|V信 abcde123|+90 555 123 45 67|+86 555 2345678
ann@myexample.com|bob@example.com.cn|x@notexample.org|0532 123 45 67|0 532 123 45 67 numaram bu|(11) 91234-5678
11 91234-5678 me liga que eu não posso|+55 11 91234-5678|मेरा नंबर 98765 43210 है|मेरा नंबर ९८७६५४३२१० है
090-1234-5678|010-1234-5678 이야|03-1234-5678です|06 12 34 56 78|06.12.34.56.78|612345678 llámame que no puedo
0171 1234567|0171/1234567|0171-1234567|(030) 1234567|415-555-2671|my passport is 123456789|паспорт 45 06 123456
RSSMRA85T10A562S|900101-1234567|85.07.30-033.28|TC 10000000146|pesel 44051401359|850709-9805
Steuer-ID 36 574 261 809|NHS 943 476 5919|my sin 046 454 286|bsn 111222333|ssn: 123-45-6789|tel 020 7946 0958
07700 900123|call 020 7946 0958|IBAN GB82 WEST 1234 5698 7654 32|FR14 2004 1010 0505 0001 3M02 606
rekening NL91ABNA0417164300|4111 1111 1111 1111|5500-0000-0000-0004|378282246310005|wechat id: coolguy99
telegram bot 123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw|رقمي ٠١٠١٢٣٤٥٦٧٨|۰۹۱۲۳۴۵۶۷۸۹|0912 345 6789
021-12345678|021 1234 5678
"""  # noqa: E501
"""Single secrets as people write them."""

PLAIN = """
I bought 3 for 1200 2400 3600|tomorrow 10:30 - 11:45|score was 21-19 21-17 11-9|ISBN 0-306-40615-2
ISBN 978-0-306-40615-7|flight LH 1234 at 12:50|LH 454 seat 23A|bus 142, 245 or 366|chapter 12 verse 15-18
100 200 300 400 500 600|1,234,567.89|1.234.567,89 €|12 345 678 €|1 000 000 000|10 000 000 рублей|123 456 789 руб
3.14159265358979|2.718281828459|52.5200, 13.4050|-33.8688, 151.2093|N 52° 31' 12.025
192.168 resolution 1920x1080|1920x1080x60|v1.2.3.4567|python3.11.7|2024-01-15 14:30:22|20240115|20240115143022
15.01.2024 14:30|01/15/2024|1/15/24 2:30pm|2019/2020 2021/2022|1990 2000 2010|1914-1918 and 1939-1945
order 123-4567890-1234567|amazon order 305-1234567-7654321|UPS 1Z999AA10123456784|tracking no. RR123456789CN
DHL 00340434161094042557|LOT 12345678|lot number 987654321|invoice #00012345|RE-2024-001234
Kundennummer 12345678|Vertragsnummer 123456789|Zählerstand 0123456|Az. 12 C 345/23|HRB 123456|USt-ID DE123456789
model 6ES7 214-1AG40|GTX 1080 Ti 11264 MB|8 GB 16 GB 32 GB 64 GB|sets: 12 10 8 6, 60 kg|5x5 100 kg 3x8 80 kg
200g Mehl, 100g Zucker, 2 Eier|350 g flour 180°C 25 min|PIN the post|steps today 12345|12 345 steps|10,000 steps
my iq is 999999999|99999999999 times|100000000|1234567|12345678|123456789 lol|9876543210 countdown|00000000
11111111|1 2 3 4 5 6 7 8 9|1-2-3-4-5-6-7|qq me|QQ so sad 11111|wechat group 500 people|微信收款 1234567元
微信余额12345678|qq空间访问12345次|QQ音乐 2020版|加我微信看看|微信号没了|扣扣搜搜|v me 50|vx me|the pan is 12 inch 3456
sin(30) = 0.5 and 1234567|run 10 km 5 km 12345678 m|ni hao 12 34 56 c|fin 1234567|nie wieder 12345678
rut 1234567 road|dni 14 16 18 20|за 3 дня 1200300 просмотров|2500000 рублей|маршрут 8 926|дом 8 кв 926 этаж 12
8 из 10, 9 из 10|8 800 2000 500|цена 8 999 999|в 2019 2020 2021 годах|serie A 2019-2020 2020-2021
temporada 2019/20 2020/21|gana 6-4 7-5 6-3|resultado 6-4, 7-6, 6-3|5000 6000 7000 pesos|R$ 1.500.000,00
1.500.000 de pessoas|CEP 01310-100|CEP: 04538-132|75001 Paris 75002|10115 Berlin 10117|〒100-0001|郵便番号 150-0002
06236 서울|邮编 100000|邮编：200030|第12345期|中奖号码 08 12 15 22 28 31 05|双色球 01 05 09 12 20 33|车次 G1234 12:30|航班 CA1234
京A12345|沪B88888|尾号1234|尾号 8888 的卡|股票600519|代码 000001|基金 110022|涨到3456.78点|0.618 1.618 2.618|2^31 = 2147483648
4294967296|1e10 10000000000|0xdeadbeef|#FF5733 #C70039|rgb(255, 255, 255)|port 8080 8081 8443|127.0.0.1:8080
err 0x80070057|HTTP 404 500 502|RFC 5737|ISO 8601 9001 27001|case 12-cv-34567|section 12.34.56.78
12:34:56:78:9a:bc|AA:BB:CC:DD:EE:FF|00:1A:2B:3C:4D:5E|uuid 550e8400-e29b|commit 3f2a9bc|e4 e5 Nf3 Nc6 Bb5 a6
1. e4 e5 2. Nf3 Nc6|GPA 3.85 3.92 4.00|90 95 98 100 88 76 54|bpm 120 128 140 174|ISO 100 f/2.8 1/250
35mm 50mm 85mm|1080p 1440p 2160p|EU 42 US 9 UK 8.5|90-60-90|36-24-36 34-25-35|+1 +1 +1|+1000000|+5000 points
+100000000 aura|-1000000|+- 1234567|++1234567
"""  # noqa: E501


def ordinary() -> list[str]:
    """Chat lines with numbers and signs in them, and none that is anybody's secret."""
    dice = random.Random(11)

    def fill(frame: str) -> str:
        values: dict[str, Callable[[], str]] = {
            "price": lambda: f"{dice.choice('$€£')}{dice.randint(1, 9999)}.{dice.randint(0, 99):02}",
            "time": lambda: f"{dice.randint(0, 23)}:{dice.randint(0, 59):02}",
            "date": lambda: dice.choice(["2024-03-{:02}", "{:02}/11/2023", "{:02}.06.2022"]).format(
                dice.randint(1, 28)
            ),
            "year": lambda: str(dice.randint(1950, 2030)),
            "n1": lambda: str(dice.randint(1, 9)),
            "n2": lambda: str(dice.randint(10, 99)),
            "n3": lambda: str(dice.randint(100, 999)),
        }
        return re.sub(r"\{(\w+)\}", lambda match: values[match[1]](), frame)

    filled_lines = [fill(frame) for frame in FRAMES.strip().replace("\n", "|").split("|") for _ in range(4)]
    return [*filled_lines, *PLAIN.strip().replace("\n", "|").split("|")]
