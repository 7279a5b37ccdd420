"""The tokenizer of `tests.tiny`, in a module of its own: it can be imported without torch, which takes seconds."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from doppel.transcript import Transcript


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges (an empty line is one token), special and plain added tokens."""
    merges = [("Ċ", "Ċ"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("m", "e"), ("Ġ", "a"), ("l", "l")]
    spellings = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    first = ["<pad>", "<eos>", "<bos>"]
    vocabulary = {spelling: number for number, spelling in enumerate(first + spellings)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*first, "<start_of_turn>", "<end_of_turn>"])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in ("<unused0>", "[toxicity=0]", "\n\n\n")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def build_transcript() -> Transcript:
    """The transcript of the tiny tokenizer."""
    return Transcript(build_tokenizer())
