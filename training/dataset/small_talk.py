"""Recognizes what everybody says everywhere, and often at the same time: greetings, wishes, thanks."""

from collections.abc import Sequence

_MAX_WORDS = 7
_WORDS = frozenset(
    """
    hi hey hello how are you your fine and thanks thank ok okay good morning evening night day see later soon bye happy
    new year birthday merry christmas easter to too all me same love i am im so much sweet dreams sleep well haha lol
    yes no hallo guten morgen abend tag gute nacht wie geht's gehts es dir gut danke und ja nein frohes neues jahr alles
    zum geburtstag frohe weihnachten bis später liebe grüße hola buenos días buenas noches tardes cómo estás qué tal
    bien gracias y feliz año nuevo cumpleaños navidad sí salut bonjour bonsoir bonne nuit ça va merci oui non joyeux
    anniversaire année noël à bientôt bom dia boa noite tarde tudo bem obrigado obrigada e sim não ano novo natal ciao
    buongiorno buonasera buonanotte come stai bene grazie buon anno compleanno natale привет доброе утро добрый день
    вечер спокойной ночи как дела хорошо спасибо да нет с новым годом днем рождения пока
    早上好 晚上好 早安 晚安 你好 您好 在吗 吃了吗 谢谢 谢谢你 好的 好的好的 哈哈 哈哈哈 新年快乐
    生日快乐 圣诞快乐 中秋快乐 春节快乐 明天见 拜拜
    おはよう おはようございます こんにちは こんばんは おやすみ おやすみなさい
    ありがとう
    ありがとうございます あけましておめでとう
    あけましておめでとうございます お疲れ様です よろしくお願いします
    """.split()  # noqa: SIM905  a list of words, not of string literals, is what can be read
)
_PUNCTUATION = " !?.,;:…~()'\"！？。，、～👍😊❤🎉🎂🥳😀😂🙏"


def is_small_talk(words: Sequence[str]) -> bool:
    """Whether a text, given as its words in lower case, is nothing else."""
    return len(words) <= _MAX_WORDS and all(
        not plain or plain in _WORDS for plain in (word.strip(_PUNCTUATION) for word in words)
    )
