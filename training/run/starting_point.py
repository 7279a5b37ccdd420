"""Where a training starts: from an adapter there is already, `doppel train --from`, instead of a new one.

Its weights are the first ones of the new adapter; rank, weight and build_model layers are its too. Knows the model and
adapters on disk; knows no data.
"""

from pathlib import Path

import msgspec
from peft import PeftModel
from peft.functional import set_peft_model_state_dict
from transformers import PreTrainedModel

from doppel.adapters.lora_file import Lora, check_fits, linear_layers, read_lora
from doppel.adapters.peft_format import check_named_base, read_peft_adapter
from doppel.adapters.versions import MANIFEST, WEIGHTS, AdapterRefused, version_folder
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.system.durable_files import file_digest
from training.lora.model import add_lora
from training.run.checkpoints import ParentAdapter, RunFolder, RunState


class StartingAdapter(msgspec.Struct, frozen=True):
    """An adapter to train on from: where it lies, what it is, and what it computes."""

    folder: Path
    parent: ParentAdapter
    lora: Lora

    @property
    def alpha(self) -> float:
        """The weight that, divided by the rank, scales it; other rules of scaling are turned into this one."""
        return self.lora.scaling.factor * self.lora.scaling.r


def choose_starting_point(
    config: Config, name: str | None, work: RunFolder, base: BaseIdentity
) -> tuple[StartingAdapter | None, RunState | None]:
    """The adapter to start from, and the unfinished run to go on with, if that one started there too.

    Args:
        config: whose persona's versions there are.
        name: as `--from` has it; None goes on with an unfinished run, wherever that one started.
        work: where an unfinished run lies.
        base: the base model to train on.

    Raises:
        UserError, AdapterRefused: as `read_starting_adapter`.
    """
    started = work.started()
    if name is None:
        if started is None or started.parent is None:
            return None, started
        name = started.parent.folder
    start = read_starting_adapter(config, name, base)
    if start.folder.is_relative_to(work.folder.resolve()):
        raise UserError(tr("{path}: will be removed by the new training; copy it elsewhere first", path=start.folder))
    return start, started if started is not None and started.parent == start.parent else None


def read_starting_adapter(config: Config, name: str, base: BaseIdentity) -> StartingAdapter:
    """The adapter that `--from` names.

    Args:
        config: whose persona's versions there are.
        name: a version, or a folder with an adapter of doppel's or PEFT's.
        base: the base model to train on.

    Raises:
        UserError: there is no such adapter. AdapterRefused: it is damaged, of another base, pickled, or no plain LoRA.
    """
    folder = _folder(config, name)
    if (folder / MANIFEST).exists():
        return StartingAdapter(
            folder, ParentAdapter(str(folder), folder.name, file_digest(folder / WEIGHTS)), read_lora(folder, base)
        )
    found = read_peft_adapter(folder, pickled=False)
    check_named_base(found, base)
    return StartingAdapter(folder, ParentAdapter(str(folder), folder.name, found.digest), found.lora)


def add_starting_lora(start: StartingAdapter, base: PreTrainedModel) -> PeftModel:
    """The base with an adapter to train that is as the one to start from.

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


def _folder(config: Config, name: str) -> Path:
    if name.isdecimal():
        return version_folder(config.adapters_dir, name.zfill(4)).resolve()
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(tr("{path}: no such folder; --from takes a version, or a folder with an adapter", path=folder))
    return folder
