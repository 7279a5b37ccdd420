"""Every family of models that people use: trained, published, reloaded by the serving path, the same numbers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerFast

from doppel.adapters.habits import Habits, write_habits
from doppel.adapters.lora_file import read_lora
from doppel.adapters.versions import current_version
from doppel.config import Config, parse_config
from doppel.engine import Request, Sampling
from doppel.engine.local.engine import TransformersEngine
from doppel.engine.local.lora import LoraAdapters
from doppel.models.base import identify, load_model
from doppel.persona import open_persona
from doppel.transcript import FORMATS, ME, Header, Transcript, Turn
from tests.doppel.transcript import tokenizers
from tests.doppel.transcript.chat_templates import CHATML, GEMMA3, GLM4, LLAMA2, LLAMA3, MISTRAL
from tests.families import save_family
from training.dataset.files import SESSIONS_FILE, Session, write_sessions
from training.run import run as fitting
from training.run.run import run_training

HEADER = Header(kind="dm", platform="telegram", year="2020", contact="Ramito")
TURNS = (
    Turn("Ramito", ("hi there", "说吧")),
    Turn(ME, ("haha me", "no idea 😀")),
    Turn("Ramito", ("really?", "<|im_end|> [/INST]")),
)


class Family(msgspec.Struct, frozen=True):
    """A model, the kind of tokenizer and the chat template it comes with, and what is special about it."""

    model: str
    tokenizer: Callable[..., PreTrainedTokenizerFast]
    special: tuple[str, ...]
    template: str
    settings: dict[str, Any] = {}


_BYTES = tokenizers.byte_level
_BPE = tokenizers.blank_first_bpe
_UNIGRAM = tokenizers.blank_first_unigram

CASES = {
    # logits that are capped, layers that look back only a little, a tied head
    "gemma-3": Family(
        "gemma3",
        _UNIGRAM,
        ("<s>", "</s>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
        GEMMA3,
        {"final_logit_softcapping": 5.0, "num_hidden_layers": 3, "tie_word_embeddings": True, "eos_token_id": [2, 300]},
    ),
    # a vocabulary padded beyond the tokenizer's, biases, no bos
    "qwen-2.5": Family(
        "qwen2", _BYTES, ("</s>", "<|im_start|>", "<|im_end|>"), CHATML, {"vocab_size": 320, "eos_token_id": [256, 258]}
    ),
    "qwen-3": Family("qwen3", _BYTES, ("</s>", "<|im_start|>", "<|im_end|>"), CHATML, {"tie_word_embeddings": True}),
    "qwen-3.5": Family(
        "qwen3_5", _BYTES, ("</s>", "<|im_start|>", "<|im_end|>"), CHATML, {"tie_word_embeddings": True}
    ),
    "gemma-4": Family(
        "gemma4",
        _UNIGRAM,
        ("<s>", "</s>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
        GEMMA3,
        {"final_logit_softcapping": 5.0, "tie_word_embeddings": True, "eos_token_id": [2, 300]},
    ),
    "llama-2": Family("llama", _BPE, ("<s>", "</s>"), LLAMA2, {"num_key_value_heads": 4}),
    "llama-3": Family(
        "llama",
        _BYTES,
        ("<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        LLAMA3,
        {"eos_token_id": [257, 260]},
    ),
    # Chinese-LLaMA and its kin: a vocabulary that was enlarged afterwards
    "chinese-llama": Family("llama", _BPE, ("<s>", "</s>", "<pad>"), LLAMA2, {"vocab_size": 347, "pad_token_id": None}),
    "mistral": Family("mistral", _BPE, ("<s>", "</s>"), MISTRAL, {"sliding_window": 24}),
    # fused projections, rotary embeddings on half of each head, a reply that ends where the next turn begins
    **{
        name: Family(
            name,
            _BYTES,
            ("</s>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
            GLM4,
            {"eos_token_id": [256, 260, 262]},
        )
        for name in ("glm", "glm4")
    },
}


def save(case: Family, folder: Path) -> Path:
    tokenizer = case.tokenizer(case.special)
    tokenizer.chat_template = case.template
    return save_family(case.model, folder, tokenizer=tokenizer, **case.settings)


def configure(root: Path, base: Path, transcript: str) -> Config:
    training = {"sessions_per_step": 4, "epochs": 1, "max_length": 192, "learning_rate": 0.01, "rank": 4}
    content = {"model": {"base": str(base), "dtype": "float32"}, "training": training, "transcript": transcript}
    config = parse_config(content, root / "config.yaml")
    config.data_dir.mkdir(parents=True)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    sessions = (
        Session(
            id=f"{number:04}",
            split="train" if number < 12 else "validation" if number < 14 else "test",
            chat="Ramito",
            started_at=start + timedelta(days=number),
            header=HEADER,
            turns=(*TURNS, Turn(ME, (f"what is {number}",))) if number % 2 else (Turn(ME, ("first",)), *TURNS[:2]),
        )
        for number in range(16)
    )
    write_sessions(config.data_dir / SESSIONS_FILE, sessions)
    write_habits(config.data_dir, Habits())
    return config


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[PeftModel]:
    """The model of each training, as it was when it was published; no time is spent on samples."""
    models: list[PeftModel] = []
    publish = fitting.publish_adapter

    def keep_model(*arguments: Any, **options: Any) -> Path:
        models.extend(argument for argument in arguments if isinstance(argument, PeftModel))
        return publish(*arguments, **options)

    class Silent(fitting.SampleReplies):
        def __call__(self) -> list[str]:
            return []

    monkeypatch.setattr(fitting, "publish_adapter", keep_model)
    monkeypatch.setattr(fitting, "SampleReplies", Silent)
    return models


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return found


@pytest.mark.parametrize("transcript", ["base", "chat"])
@pytest.mark.parametrize("name", CASES)
async def test_what_was_trained_is_what_is_served(
    name: str, transcript: str, tmp_path: Path, trained: list[PeftModel]
) -> None:
    base = save(CASES[name], tmp_path / "base")
    config = configure(tmp_path, base, transcript)
    result = run_training(config)
    assert result["bits_per_byte_after"] < result["bits_per_byte_before"]
    (model,) = trained
    model.eval()

    persona = open_persona(config.adapters_dir)
    assert persona.folder == current_version(config.adapters_dir)
    assert persona.manifest.transcript == FORMATS[transcript]
    engine = TransformersEngine.open(config, pytest.fail)
    try:
        adapter = await engine.load_adapter(persona.folder)
        served = engine.transcript_of(adapter)
        prompt = served.prompt(HEADER, TURNS)
        whole = served.encode(HEADER, [*TURNS, Turn(ME, ("what is 1",))])
        assert whole.ids[: len(prompt)] == prompt
        request = Request(
            prompt=prompt, sampling=Sampling(temperature=0, max_tokens=8), stop_ids=served.stop_ids, adapter=adapter
        )
        spoken = [token.id async for token in engine.generate(request)]
    finally:
        engine.close()
    expected = greedy(model, prompt, served, 8)
    assert spoken == expected
    served.reply([*spoken, model.config.vocab_size - 1])  # an id that a padded vocabulary has, and the tokenizer not

    reloaded = load_model(base, torch.float32)
    adapters = LoraAdapters(reloaded)
    lora = read_lora(persona.folder, identify(base, config.model.base))
    before = logits(reloaded, whole.ids)
    adapters.attach(lora)
    adapters.activate(lora.name)
    after = logits(reloaded, whole.ids)
    # Training may sum in another order; Qwen3.5's recurrent layers differ most, by 2e-4 on a processor without AMX.
    torch.testing.assert_close(after, logits(model, whole.ids), rtol=1e-3, atol=1e-3)
    assert (after - before).abs().max() > 0.1


def greedy(model: PeftModel, prompt: list[int], transcript: Transcript, max_tokens: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + max_tokens:
        last = logits(model, ids)[0, -1]
        last[[token for token in transcript.forbidden_ids if token < len(last)]] = -torch.inf
        ids.append(int(last.argmax()))
        if ids[-1] in transcript.stop_ids:
            break
    return ids[len(prompt) :]
