"""A base too large for one GPU, its layers split over all of them (FSDP2), gathered one at a time to be used.

Only the frozen matrices of the layers are split. Embeddings, norms and head stay whole on every GPU, as the loss
reads the head itself; so does the adapter, and it is trained as if nothing were split. Knows no training.
"""

from pathlib import Path

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from doppel.config import TrainingSettings
from doppel.errors import UserError
from doppel.i18n import tr
from training.lora.distributed import ProcessGroup

SHARD_ABOVE = 14e9
"""Parameters above which a base is split; in bfloat16 that many are 28 GB."""


def should_shard(training: TrainingSettings, folder: Path, ranks: ProcessGroup) -> bool:
    """Whether to split the base in `folder`: as config.yaml has it, else if it is large; never alone, nor quantised."""
    if ranks.count == 1 or training.quantize is not None:
        return False
    return _parameters(folder) > SHARD_ABOVE if training.split is None else training.split


def device_mesh(device: str, ranks: ProcessGroup) -> DeviceMesh:
    """The devices to split over; all processes make it together."""
    return init_device_mesh(device, (ranks.count,))


def split(base: PreTrainedModel, mesh: DeviceMesh, device: str) -> None:
    """Splits a base that lies in memory over the devices of all processes.

    Args:
        base: on the CPU, frozen or about to be.
        mesh: the devices.
        device: `cuda` or `cpu`, where it computes afterwards.

    Raises:
        UserError: a model whose layers are not known.
    """
    layers = [one for one in base.modules() if type(one).__name__ in (base._no_split_modules or ())]
    if not layers:
        raise UserError(tr("model.base: models of type {kind} cannot be split over GPUs", kind=base.config.model_type))
    matrices = {one for layer in layers for one in layer.parameters() if one.dim() > 1}
    others = {one for one in base.parameters() if one not in matrices}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=others)
    # holds nothing itself; it is what makes one layer be fetched while another one computes
    fully_shard(base.base_model, mesh=mesh, ignored_params=others)
    for whole in (*base.parameters(), *base.buffers()):
        if not isinstance(whole, DTensor):
            whole.data = whole.data.to(device)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether `split` was applied to the model or to what is in it."""
    return any(isinstance(one, DTensor) for one in model.parameters())


def _parameters(folder: Path) -> int:
    """How many parameters a model has, without its weights being read."""
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.num_parameters()
