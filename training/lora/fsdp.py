"""FSDP2 for a base that is too large for one GPU: its layers are sharded over all GPUs and gathered one at a time.

Only the frozen matrices of the layers are sharded. Embeddings, norms and head stay whole on every GPU, because the
loss reads the head directly; so does the adapter, which is trained as if nothing were sharded.
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
"""Bases with more parameters are sharded by default; in bfloat16 that many take 28 GB."""


def should_shard(training: TrainingSettings, base_folder: Path, processes: ProcessGroup) -> bool:
    """Whether to shard the base: `training.split` decides, else its size. Never in one process, nor if quantised."""
    if processes.world_size == 1 or training.quantize is not None:
        return False
    return _parameter_count(base_folder) > SHARD_ABOVE if training.split is None else training.split


def make_device_mesh(device: str, processes: ProcessGroup) -> DeviceMesh:
    """The devices to shard over; every process has to call this."""
    return init_device_mesh(device, (processes.world_size,))


def shard_base(base: PreTrainedModel, mesh: DeviceMesh, device: str) -> None:
    """Shards a base that is in memory over the devices of all processes.

    Args:
        base: on the CPU; not trained.
        mesh: the devices.
        device: `cuda` or `cpu`, where the model computes afterwards.

    Raises:
        UserError: the layers of this type of model are not known.
    """
    layers = [module for module in base.modules() if type(module).__name__ in (base._no_split_modules or ())]
    if not layers:
        raise UserError(tr("model.base: models of type {kind} cannot be split over GPUs", kind=base.config.model_type))
    matrices = {parameter for layer in layers for parameter in layer.parameters() if parameter.dim() > 1}
    whole = {parameter for parameter in base.parameters() if parameter not in matrices}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    # holds no parameters itself, but makes FSDP fetch the next layer while one computes
    fully_shard(base.base_model, mesh=mesh, ignored_params=whole)
    for tensor in (*base.parameters(), *base.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether `shard_base` was applied to the model or to a part of it."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _parameter_count(base_folder: Path) -> int:
    """The number of parameters of a base, without reading its weights."""
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(base_folder, local_files_only=True)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.num_parameters()
