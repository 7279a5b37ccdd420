"""Stand-ins are known by having been made, and phone numbers of every country are replaced."""

import json
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from phonenumbers import (
    SUPPORTED_REGIONS,
    PhoneNumberFormat,
    PhoneNumberType,
    example_number_for_type,
    format_number,
)

from doppel.config import PrivateKind
from doppel.transcript.language import language_of
from tests.training.messages import message
from tests.training.privacy.lines import letters, planted
from training.archives.message import Message
from training.dataset.parallel_reader import clean_messages
from training.privacy.known_stand_ins import STAND_INS_FILE
from training.privacy.regions import Regions
from training.privacy.scrub import KEY_FILE, Scrubber

KINDS: tuple[PrivateKind, ...] = get_args(PrivateKind)


def scrubbed(folder: Path, *texts: str, zone: ZoneInfo | None = None) -> list[str]:
    """What a scrubber of its own makes of texts."""
    scrubber = Scrubber(folder, folder, KINDS, zone=zone)
    try:
        return [scrubber.scrub(text, "chat.json:1") for text in texts]
    finally:
        scrubber.close()


@pytest.mark.parametrize(
    "text",
    [
        "+90 555 123 45 67",
        "+86 555 2345678",
        "ann@myexample.com",
        "+49 555 1234567",
        "password: fakeLove99",
        "1 (555) 867-5309",
        "DE00 3704 0044 0532 0130 00",
        "221 Example Street",
        "my pin: 004217",
        "密码是FAKE12ab",
        "我家住示例路12号",
    ],
)
def test_what_looks_like_a_stand_in_is_replaced_unless_it_was_made(tmp_path: Path, text: str) -> None:
    (once,) = scrubbed(tmp_path, text)
    assert once != text
    assert scrubbed(tmp_path, once) == [once]


def test_without_the_list_or_with_another_key_nothing_is_known(tmp_path: Path) -> None:
    (once,) = scrubbed(tmp_path, "+90 532 123 45 67")
    assert scrubbed(tmp_path, once) == [once]
    (tmp_path / STAND_INS_FILE).unlink()
    assert scrubbed(tmp_path, once) != [once]
    (tmp_path / KEY_FILE).unlink()
    (twice,) = scrubbed(tmp_path, once)
    assert twice != once
    assert scrubbed(tmp_path, twice) == [twice]


def test_the_list_of_an_earlier_build_moves_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    (once,) = scrubbed(old, "call +90 532 123 45 67")
    scrubber = Scrubber(new, old, KINDS)
    assert scrubber.scrub("mail ann@gmail.com", "a:1") != "mail ann@gmail.com"
    scrubber.close()
    assert scrubbed(new, once) == [once]
    assert (new / STAND_INS_FILE).stat().st_mode & 0o077 == 0


def test_the_list_holds_no_values(tmp_path: Path) -> None:
    texts = [text for _, _, text in planted(1)]
    after = scrubbed(tmp_path, *texts)
    stored = (tmp_path / STAND_INS_FILE).read_bytes()
    assert 0 < len(stored) <= 8 * 2 * len(texts)
    assert [text for text in (*texts, *after) if text.encode() in stored] == []


REGION_TYPES = [
    (region, kind)
    for region in sorted(SUPPORTED_REGIONS)
    for kind in PhoneNumberType.values()
    if kind != PhoneNumberType.UNKNOWN and example_number_for_type(region, kind) is not None
]
FRAMES = (
    "{}",
    "call {} now",
    "我的号码是{}，谢谢",
    "({}) ok",
    "tel:{}",
    "звони {}!",
    "{} at 12:30",
    "2 kids, {}, 3 dogs",
)


@given(st.sampled_from(REGION_TYPES), st.sampled_from(FRAMES), st.booleans())
@example(("IR", PhoneNumberType.UAN), "{}", True)
@example(("US", PhoneNumberType.FIXED_LINE), "{}", False)
def test_numbers_of_every_region_are_replaced_once(region_type: tuple[str, int], frame: str, is_spaced: bool) -> None:
    number_format = PhoneNumberFormat.INTERNATIONAL if is_spaced else PhoneNumberFormat.E164
    number = format_number(example_number_for_type(*region_type), number_format)
    text = frame.format(number)
    with TemporaryDirectory() as name:
        (once,) = scrubbed(Path(name), text)
        assert number not in once
        assert scrubbed(Path(name), once) == [once]


def test_example_numbers_of_all_regions(tmp_path: Path) -> None:
    texts = [
        format_number(example_number_for_type(*region_type), number_format)
        for region_type in REGION_TYPES
        for number_format in (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164)
    ]
    once = scrubbed(tmp_path, *texts)
    assert [text for text, now in zip(texts, once, strict=True) if text == now] == []
    assert scrubbed(tmp_path, *once) == once


SENTENCES = {
    "ar": "رقمي {} اتصل",
    "de": "ruf mich an unter {} und nicht später",
    "el": "το νούμερο μου είναι {} πάρε",
    "en": "you can call me at {} and that is it",
    "es": "mi número es {} y no me llames",
    "fr": "mon numéro c'est {} et je suis là",
    "he": "המספר שלי {} תתקשר",
    "hi": "मेरा नंबर {} है",
    "id": "nomor aku {} ya bisa dan tidak",
    "it": "il mio numero è {} non chiamare",
    "ja": "番号は{}です",
    "ko": "내 번호는 {} 이야",
    "pt": "o meu número é {} não esqueça",
    "ru": "мой номер {} звони",
    "th": "เบอร์ {} โทรมา",
    "tr": "benim numara {} ve bu çok iyi",
    "zh": "我的号码是{}，记一下",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_numbers_as_they_are_written_where_the_language_is_spoken(tmp_path: Path, language: str) -> None:
    sentence = SENTENCES[language]
    assert language_of(sentence.format("12")) == language
    regions = Regions().of(sentence.format("12"))
    assert regions
    numbers = [
        format_number(example_number_for_type(region, kind), PhoneNumberFormat.NATIONAL)
        for region in regions
        for kind in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE)
    ]
    once = scrubbed(tmp_path, *map(sentence.format, numbers))
    assert [number for number, now in zip(numbers, once, strict=True) if number in now] == []
    assert scrubbed(tmp_path, *once) == once


@pytest.mark.parametrize(
    ("zone", "number"),
    [
        ("Europe/Copenhagen", "32 12 34 56"),
        ("Asia/Singapore", "8123 4567"),
        ("Asia/Kolkata", "98765 43210"),
        ("America/Sao_Paulo", "11 96123-4567"),
        ("Europe/Warsaw", "512 345 678"),
    ],
)
def test_numbers_as_they_are_written_where_the_owner_lives(tmp_path: Path, zone: str, number: str) -> None:
    (after,) = scrubbed(tmp_path, f"ok {number}", zone=ZoneInfo(zone))
    assert number not in after
    assert scrubbed(tmp_path, f"ok {number}") == [f"ok {number}"]


def test_the_language_of_the_chat_tells_the_country(tmp_path: Path) -> None:
    def spans(*texts: str) -> list[int]:
        messages: list[Message] = [message(number, text) for number, text in enumerate(texts)]
        return [len(secrets) for _, _, secrets in clean_messages(messages, frozenset(KINDS), Regions())]

    assert spans("ok 512 345 678") == [0]
    assert spans("es que no me lo puedo creer, qué risa", "ok 612 34 56 78") == [0, 1]


@given(st.randoms(use_true_random=False), st.integers(0, 400))
def test_scrubbing_twice_is_scrubbing_once_in_any_company(dice: random.Random, number: int) -> None:
    """Whatever stands around a secret, and beside it in one message."""
    rows = planted(1)
    texts = [rows[(number + step) % len(rows)][2] for step in (0, dice.randrange(len(rows)))]
    between = dice.choice([" ", "\n", ", ", "，", " 12 ", ": ", " und ", " - "])
    text = between.join((letters(dice, dice.randrange(4)), *texts, letters(dice, dice.randrange(4))))
    with TemporaryDirectory() as name:
        (once,) = scrubbed(Path(name), text)
        (twice,) = scrubbed(Path(name), once)
        assert twice == once


# What detect-secrets knows --------------------------------------------------------------------------------------------

HEX, LOWER = "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz0123456789"


def key(template: str, count: int, alphabet: str = "") -> Callable[[random.Random], str]:
    return lambda dice: template.format(letters(dice, count, alphabet) if alphabet else letters(dice, count))


def json_web_token(dice: random.Random) -> str:
    parts = ('{"alg":"HS256"}', json.dumps({"sub": letters(dice, 12)}))
    signed = ".".join(urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return f"{signed}.{letters(dice, 43)}"


KEYS: dict[str, tuple[Callable[[random.Random], str], ...]] = {
    "ArtifactoryDetector": (key("AKC{}", 70), key("APA{}", 60)),
    "AWSKeyDetector": (
        *(
            key(lead + "{}", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
            for lead in ("AKIA", "ASIA", "ABIA", "ACCA", "A3TX")
        ),
        key("aws_secret_key = '{}'", 40),
    ),
    "AzureStorageKeyDetector": (key("AccountKey={}==", 86),),
    "BasicAuthDetector": (key("https://root:{}@db.corp.net", 12),),
    "CloudantDetector": (
        key("cloudant_key={}", 64, HEX),
        key("cloudant_apikey: {}", 24, LOWER[:26]),
        key("https://ann:{}@ann.cloudant.com", 64, HEX),
    ),
    "DiscordBotTokenDetector": (lambda dice: f"M{letters(dice, 23)}.{letters(dice, 6)}.{letters(dice, 27)}",),
    "GitHubTokenDetector": tuple(key(lead + "_{}", 36) for lead in ("ghp", "gho", "ghu", "ghs", "ghr")),
    "GitLabTokenDetector": (
        *(key(lead + "-{}", 20) for lead in ("glpat", "gldt", "glft", "glsoat", "glrt", "glcbt")),
        key("GR1348941{}", 20),
        key("glimt-{}", 25),
        key("glptt-{}", 40),
        key("glagent-{}", 50),
        key("gloas-{}", 64),
    ),
    "IbmCloudIamDetector": (key("ibm_cloud_iam_api_key={}", 44), key("api_key: {}", 44)),
    "IbmCosHmacDetector": (key("cos_hmac_secret_access_key={}", 48, HEX),),
    "JwtTokenDetector": (json_web_token,),
    "MailchimpDetector": (key("{}-us12", 32, HEX),),
    "NpmDetector": (
        key("//registry.npmjs.org/:_authToken=npm_{}", 36),
        key("//registry.npmjs.org/:_authToken={}-1111-2222-3333-444455556666", 8, HEX),
    ),
    "OpenAIDetector": (lambda dice: f"sk-{letters(dice, 20)}T3BlbkFJ{letters(dice, 20)}",),
    "PrivateKeyDetector": (
        *(
            key(f"-----BEGIN {name}-----\n{{}}\n-----END {name}-----", 64)
            for name in ("DSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "PRIVATE KEY", "RSA PRIVATE KEY")
        ),
        key("-----BEGIN PGP PRIVATE KEY BLOCK-----\n{}", 64),
        key("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----", 64),
        key("PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 1\n{}", 64),
    ),
    "PypiTokenDetector": (key("pypi-AgEIcHlwaS5vcmc{}", 80), key("pypi-AgENdGVzdC5weXBpLm9yZw{}", 80)),
    "SendGridDetector": (lambda dice: f"SG.{letters(dice, 22)}.{letters(dice, 43)}",),
    "SlackDetector": (
        key("xoxb-1234567890-1234567890-{}", 24, LOWER),
        key("https://hooks.slack.com/services/T0AB1CD2E/B0AB1CD2E/{}", 24),
    ),
    "SoftlayerDetector": (
        key("softlayer_api_key={}", 64, LOWER),
        key("https://api.softlayer.com/soap/v3/{}", 64, LOWER),
    ),
    "SquareOAuthDetector": (key("sq0csp-{}", 43),),
    "StripeDetector": (key("sk_live_{}", 24), key("rk_live_{}", 24)),
    "TelegramBotTokenDetector": (lambda dice: f"{dice.randint(10**8, 10**10 - 1)}:AA{letters(dice, 33)}",),
    "TwilioKeyDetector": (key("AC{}", 32, LOWER), key("SK{}", 32, LOWER)),
}
OTHERS = {"IPPublicDetector", "KeywordDetector", "Base64HighEntropyString", "HexHighEntropyString"}
"""Its guesses at words and disorder, for source code, and addresses, which are a kind of their own."""


def test_keys_of_every_kind_that_detect_secrets_knows(tmp_path: Path) -> None:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    plugins = {plugin.__name__: plugin for plugin in get_mapping_from_secret_type_to_class().values()}
    assert plugins.keys() - OTHERS == KEYS.keys()
    dice = random.Random(5)
    texts: list[tuple[str, str]] = []
    for name, makers in KEYS.items():
        plugin = plugins[name]()
        for make in makers:
            for _ in range(20):
                text = make(dice)
                assert any(list(plugin.analyze_string(line)) for line in text.splitlines()), text
                texts.append((name, text))
    after = scrubbed(tmp_path, *(text for _, text in texts))
    missed = [(name, text) for (name, text), now in zip(texts, after, strict=True) if text == now]
    assert missed == [], missed
