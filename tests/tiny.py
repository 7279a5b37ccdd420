"""A tiny random base model with a real fast tokenizer, and adapters for it: whole pipelines in milliseconds."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from doppel.adapters.habits import Habits, write_habits
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, Manifest, publishing
from tests.tiny_tokenizer import build_tokenizer, build_transcript  # noqa: F401 - tests import both from here

CONTEXT_LENGTH = 512
VOCABULARY = {
    "year": ["2017", "2018"],
    "weekday": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
    "hour": ["night", "morning", "afternoon", "evening"],
    "platform": ["sample", "telegram"],
    "kind": ["dm", "group", "post"],
    "language": ["en"],
}


def build_base(folder: Path, *, seed: int = 0, hidden_size: int = 32) -> Path:
    """Saves a random Gemma 3 (sliding and full attention layers, as the bundled base has) and its tokenizer."""
    tokenizer = build_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=CONTEXT_LENGTH,
        sliding_window=32,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        initializer_range=0.15,
        tie_word_embeddings=False,  # a tied random head only repeats its input
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma3ForCausalLM(config)
    _prefer_plain_text(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _prefer_plain_text(model: Gemma3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Makes ASCII likely, so that what the model says is visible text and turns end now and then."""
    texts = [tokenizer.decode(token) for token in range(len(tokenizer))]
    special = tokenizer.get_added_vocab().keys() - {tokenizer.eos_token}
    likely = [text.isascii() and (text.isprintable() or text == "\n\n") and text not in special for text in texts]
    weight = model.lm_head.weight
    scale = torch.where(torch.tensor(likely), 3.0, 0.25)
    with torch.no_grad():
        weight.mul_(scale[:, None])


def save_lora(base: Path, folder: Path, *, seed: int = 0, rank: int = 4) -> None:
    """Writes adapter_model.safetensors and adapter_config.json of a random LoRA that clearly changes the output."""
    for name, content in _lora_files(base, seed, rank).items():
        (folder / name).write_bytes(content)


@cache
def _lora_files(base: Path, seed: int, rank: int) -> dict[str, bytes]:
    """What PEFT saves of a random LoRA; made once, as most tests need the same few."""
    with torch.random.fork_rng(), TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(model, settings).save_pretrained(folder)
        return {name: (Path(folder) / name).read_bytes() for name in (WEIGHTS, PEFT_CONFIG)}


def publish_adapter(
    base: Path,
    adapters_dir: Path,
    *,
    persona: str = "sample",
    seed: int = 0,
    base_id: str | None = None,
    habits: Habits | None = None,
) -> Path:
    """Publishes a random adapter for `base` as training would and returns its folder."""
    from doppel.models.base import identify

    manifest = Manifest(
        persona=persona, base=identify(base, base_id or str(base)), header_vocabulary=VOCABULARY, sampling={}
    )
    with publishing(adapters_dir, manifest) as staging:
        save_lora(base, staging, seed=seed)
        write_habits(staging, habits or Habits())
    return adapters_dir / (adapters_dir / "current").read_text(encoding="ascii").strip()
