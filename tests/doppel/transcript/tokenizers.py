"""Small real tokenizers of the kinds base models have: byte-level BPE, and SentencePiece with a leading blank."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "\u203b")
ADDED = ("<tool>", "[TOOL]", "  ", "\n\n\n", "me:")
_BYTES = [f"<0x{number:02X}>" for number in range(256)]


def byte_level(special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """As Qwen, Llama 3 or GPT-NeoX: text becomes bytes, a few of which are merged; no BOS; NFC first."""
    merges = [("Ċ", "Ċ"), (".", "Ċ"), (".Ċ", "Ċ"), ("h", "i"), ("Ġ", "h"), ("Ġ", "Ġ"), ("m", "e"), ("Ġ", "me")]
    spellings = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    tokenizer = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(spellings)}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(["\u3042"])  # a letter that the vocabulary lacked
    return _finished(tokenizer, special, eos_token="</s>")


def blank_first_bpe(special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """As Llama 2 or Mistral: every text begins with a blank, unknown characters fall back to bytes."""
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz:[]<>|_/.", "hi", "\u2581h", "\u2581hi", "me", "\u2581me"]
    merges = [("h", "i"), ("\u2581", "h"), ("\u2581", "hi"), ("m", "e"), ("\u2581", "me")]
    vocabulary = {text: number for number, text in enumerate(["<unk>", *_BYTES, *letters])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = _byte_fallback_decoder()
    return _finished(tokenizer, special, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def blank_first_unigram(special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """As SentencePiece's Unigram models: any entry of the vocabulary is matched in text, control tokens too."""
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz:[]<>|_/.", "hi", "\u2581me", "\u2581hi"]
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((text, -9.0) for text in _BYTES)]
    vocabulary += [(text, -float(number)) for number, text in enumerate(letters, 2)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = _byte_fallback_decoder()
    return _finished(tokenizer, special, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def line_losing() -> PreTrainedTokenizerFast:
    """As many encoder models: splits at white space and forgets which it was."""
    vocabulary = {text: number for number, text in enumerate(["<unk>", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _byte_fallback_decoder() -> decoders.Sequence:
    return decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def _finished(tokenizer: Tokenizer, special: Sequence[str], **loss_mask: str) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **loss_mask)
