"""llama.cpp in this process, and base models in its format to try GGUF LoRAs on.

The bases carry a stand-in vocabulary: llama.cpp is only ever given token ids here, and asked for token ids.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import torch
import xllamacpp
from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH_NAMES
from transformers import PreTrainedModel

from doppel.adapters.export.base_gguf import add_sizes, add_vocabulary
from doppel.adapters.export.families import FAMILIES, base_tensors

TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
}


def write_base(model: PreTrainedModel, file: Path, dtype: str, *, end: int) -> Path:
    """Writes a model of a known family as GGUF, matrices in `dtype`.

    Args:
        end: the token id at which llama.cpp may stop; take one that is not expected.
    """
    config = model.config.get_text_config()
    family = FAMILIES[config.model_type]
    writer = GGUFWriter(file, MODEL_ARCH_NAMES[family.architecture])
    add_sizes(writer, config)
    add_vocabulary(writer, config.vocab_size, end)
    for name, values, is_exact in base_tensors(model.state_dict().items(), config, family):
        stored = TYPES["f32" if is_exact else dtype]
        data = gguf.quants.quantize(values.contiguous().numpy(), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


class LlamaCpp:
    """A base model, perhaps with a LoRA, in llama.cpp on the CPU.

    Args:
        base: the model as GGUF.
        lora: the adapter as GGUF.
        threads: to compute with.
    """

    def __init__(self, base: Path, lora: Path | None = None, *, threads: int = 1, context: int = 512) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(base)
        if lora is not None:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        parameters.n_ctx = context
        parameters.swa_full = True  # a prompt that goes on from the one before is not computed again
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        # Nothing but the weights in 16 bits: neither attention nor what it remembers.
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.warmup = False
        parameters.verbosity = -1
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self._server = xllamacpp.Server(parameters)

    def greedy(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """The likeliest continuation, token by token."""
        return [step["id"] for step in self._complete(prompt, tokens, 1)]

    def log_probabilities(self, prompt: Sequence[int], vocabulary: int) -> torch.Tensor:
        """(vocabulary,) log-probabilities of the next token, in nats."""
        (step,) = self._complete(prompt, 1, vocabulary)
        found = torch.full((vocabulary,), -torch.inf)
        for token in step["top_logprobs"]:
            found[token["id"]] = token["logprob"]
        return found

    def _complete(self, prompt: Sequence[int], tokens: int, alternatives: int) -> list[dict[str, Any]]:
        answer = self._server.handle_completions(
            {"prompt": list(prompt), "max_tokens": tokens, "temperature": 0.0, "logprobs": alternatives, "seed": 0}
        )
        steps: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"]
        return steps
