"""The adapter that `doppel train --from` starts from, instead of a new one.

The new adapter takes over its weights, rank, scaling and adapted layers.
"""

from pathlib import Path

import msgspec
from peft import PeftModel
from peft.functional import set_peft_model_state_dict
from transformers import PreTrainedModel

from doppel.adapters.lora_file import Lora, check_fits, linear_layers, read_lora
from doppel.adapters.peft_format import check_named_base, read_peft_adapter
from doppel.adapters.versions import MANIFEST, WEIGHTS, AdapterRefused, version_folder
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.system.durable_files import file_digest
from training.lora.model import add_lora
from training.run.run_state import ParentAdapter, RunFolder, RunState


class StartingAdapter(msgspec.Struct, frozen=True):
    """An adapter to start from.

    Attributes:
        folder: where it is.
        parent: its identity, as stored with the run.
        lora: its weights and scaling.
    """

    folder: Path
    parent: ParentAdapter
    lora: Lora

    @property
    def alpha(self) -> float:
        """LoRA alpha in the usual scaling, alpha / rank; other scaling rules are converted."""
        return self.lora.scaling.factor * self.lora.scaling.r


def choose_starting_point(
    adapters_dir: Path, name: str | None, run_folder: RunFolder, base: BaseIdentity
) -> tuple[StartingAdapter | None, RunState | None]:
    """The adapter to start from, and the unfinished run to resume if it started from the same adapter.

    Args:
        adapters_dir: the persona's published versions.
        name: value of `--from`; None resumes an unfinished run, whatever it started from.
        run_folder: of an unfinished run.
        base: the base model to train on.

    Raises:
        UserError, AdapterRefused: as in `read_starting_adapter`.
    """
    state = run_folder.read_state()
    if name is None:
        if state is None or state.parent is None:
            return None, state
        name = state.parent.folder
    start = read_starting_adapter(adapters_dir, name, base)
    if start.folder.is_relative_to(run_folder.folder.resolve()):
        raise UserError(tr("{path}: the new training would delete it; copy it elsewhere first", path=start.folder))
    return start, state if state is not None and state.parent == start.parent else None


def read_starting_adapter(adapters_dir: Path, name: str, base: BaseIdentity) -> StartingAdapter:
    """The adapter that `--from` names.

    Args:
        adapters_dir: the persona's published versions.
        name: a version, or a folder with an adapter in doppel's or PEFT's format.
        base: the base model to train on.

    Raises:
        UserError: there is no such adapter.
        AdapterRefused: it is damaged, pickled, made for another base, or not a plain LoRA.
    """
    folder = _adapter_folder(adapters_dir, name)
    if (folder / MANIFEST).exists():
        parent = ParentAdapter(str(folder), folder.name, file_digest(folder / WEIGHTS))
        return StartingAdapter(folder, parent, read_lora(folder, base))
    adapter = read_peft_adapter(folder, pickled=False)
    check_named_base(adapter, base)
    return StartingAdapter(folder, ParentAdapter(str(folder), folder.name, adapter.digest), adapter.lora)


def add_starting_lora(start: StartingAdapter, base: PreTrainedModel) -> PeftModel:
    """The base with a trainable copy of the adapter.

    Raises:
        AdapterRefused: it adapts layers that the base does not have, or the head, which is not trained here.
    """
    linear = linear_layers(base)
    check_fits(start.lora, linear)
    head = next(name for name, module in base.named_modules() if module is base.get_output_embeddings())
    if head in start.lora.layers:
        raise AdapterRefused(
            tr("{path}: adapts the output head ({layer}), which doppel does not train", path=start.folder, layer=head)
        )
    model = add_lora(base, start.lora.scaling.r, start.alpha, sorted(start.lora.layers))
    set_peft_model_state_dict(model, dict(start.lora.weights))
    return model


def _adapter_folder(adapters_dir: Path, name: str) -> Path:
    if name.isdecimal():
        return version_folder(adapters_dir, name.zfill(4)).resolve()
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(tr("{path}: no such folder; --from needs a version or a folder with an adapter", path=folder))
    return folder
