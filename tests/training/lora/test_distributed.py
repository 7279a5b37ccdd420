"""Processes that train together agree, and compute together what one computes alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from doppel.config import TrainingSettings
from doppel.errors import DoppelError, UserError
from doppel.models.base import load_model
from tests.processes import Child, free_port, launcher_environment, together
from training.lora import fsdp
from training.lora.bits_per_byte import score_examples
from training.lora.data_parallel import score_in_parallel, split_step
from training.lora.distributed import SINGLE_PROCESS, ProcessGroup, join_processes
from training.lora.examples import Example, balanced_groups, collate
from training.lora.fsdp import is_sharded, make_device_mesh, shard_base, should_shard
from training.lora.model import add_lora, token_losses


def _examples(count: int, seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 40, (count,), generator=generator).tolist()
    return [
        Example(
            torch.randint(5, 200, (length,), generator=generator).tolist(),
            [0, 0, *torch.randint(1, 3, (length - 2,), generator=generator).tolist()],
            length,
        )
        for length in lengths
    ]


class TestBalancedGroups:
    def test_every_example_is_in_one_share_and_the_shares_are_even(self) -> None:
        items = _examples(50)
        divided = balanced_groups(items, 4)
        assert sorted(id(example) for share in divided for example in share) == sorted(map(id, items))
        loads = [sum(len(example.ids) for example in share) for share in divided]
        assert max(loads) < 1.1 * min(loads)

    def test_the_same_items_are_divided_alike_everywhere(self) -> None:
        assert balanced_groups(_examples(20), 3) == balanced_groups(_examples(20), 3)

    def test_fewer_examples_than_processes_leave_some_without(self) -> None:
        divided = split_step([_examples(2)], 3, 2048, lambda example: len(example.ids))
        assert [len(step) for step in divided] == [1, 1, 0]

    def test_alone_a_step_stays_as_it_is(self) -> None:
        step = [_examples(3), _examples(2)]
        assert split_step(step, 1, 8, lambda example: 1.0)[0] is step


class TestSingleProcess:
    def test_agrees_with_itself(self) -> None:
        assert SINGLE_PROCESS.is_main
        assert SINGLE_PROCESS.broadcast("this") == "this"
        assert SINGLE_PROCESS.all_gather(3) == [3]

    def test_gradients_of_sums_become_those_of_the_mean(self) -> None:
        parameter = torch.nn.Parameter(torch.ones(2))
        (parameter * 6).sum().backward()
        loss = SINGLE_PROCESS.average_gradients([parameter, torch.nn.Parameter(torch.ones(1))], torch.tensor(12.0), 4)
        assert loss == 3
        assert parameter.grad is not None
        assert parameter.grad.tolist() == [1.5, 1.5]

    def test_is_used_without_a_launcher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with join_processes("cuda:1") as processes:
            assert processes == SINGLE_PROCESS


@pytest.mark.parametrize(
    ("device", "environment", "text"),
    [
        ("mps", {}, "`mps` does not support several processes"),
        ("cuda:1", {}, "`cuda:1` does not support several processes"),
        ("cpu", {"ACCELERATE_USE_FSDP": "true"}, "turn that off"),
        ("cuda", {"LOCAL_RANK": "3"}, "needs at least 4 GPUs, found 0; start torchrun with --nproc-per-node 0"),
    ],
)
def test_an_unsupported_launch_is_one_clear_line(
    device: str, environment: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=text), join_processes(device):
        pass


@pytest.mark.parametrize(
    ("training", "count", "limit", "expected"),
    [
        ({}, 2, 14e9, False),
        ({}, 2, 1000.0, True),
        ({}, 1, 1000.0, False),
        ({"quantize": "nf4"}, 2, 1000.0, False),
        ({"split": False}, 2, 1000.0, False),
        ({"split": True}, 2, 14e9, True),
    ],
)
def test_a_large_base_is_sharded(
    training: dict[str, Any], count: int, limit: float, expected: bool, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsdp, "SHARD_ABOVE", limit)
    assert should_shard(TrainingSettings(**training), tiny_base, ProcessGroup(0, count)) is expected


def _agree(base: Path) -> dict[str, Any]:
    order: list[str] = []
    with join_processes("cpu") as processes:
        told = processes.broadcast({"plan": processes.rank})
        collected = processes.all_gather(processes.rank * 10)
        with processes.main_first():
            order.append("led")
        with processes.one_at_a_time():
            order.append("turn")
        parameters = [
            torch.nn.Parameter(torch.full((3,), float(processes.rank + 1))),
            torch.nn.Parameter(torch.ones(2)),
        ]
        processes.broadcast_parameters(parameters)
        start = parameters[0].tolist()
        if processes.is_main:
            (parameters[0] * 4).sum().backward()
        (parameters[1] * 6).sum().backward()
        loss = processes.average_gradients(parameters, torch.tensor(float(processes.rank)), 2)
        gradients = [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None]
        return {
            "told": told,
            "collected": collected,
            "start": start,
            "loss": float(loss),
            "gradients": gradients,
            **_sharded_like_whole(base, processes),
        }


def _sharded_like_whole(base: Path, processes: ProcessGroup) -> dict[str, Any]:
    """The same losses, gradients and scores from a base that both processes hold together."""
    whole = load_model(base, torch.float32)
    mesh = make_device_mesh("cpu", processes)
    with processes.one_at_a_time():
        parted = load_model(base, torch.float32)
        shard_base(parted, mesh, "cpu")
    items = _examples(6)
    held = sum(parameter.to_local().numel() for parameter in parted.parameters() if hasattr(parameter, "to_local"))
    bits = [
        score_in_parallel(processes, one, items, lambda share, model=one: score_examples(model, share, 64))
        for one in (whole, parted)
    ]
    alone = score_examples(whole, items, 64)
    one, other = (_gradients(model, items) for model in (whole, parted))
    return {
        "is_sharded": (is_sharded(whole), is_sharded(parted)),
        "held": held
        / sum(
            parameter.numel()
            for name, parameter in whole.named_parameters()
            if parameter.dim() > 1 and "layers" in name
        ),
        "bits": bits,
        "alone": alone,
        "apart": max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)),
    }


def _gradients(model: PreTrainedModel, items: list[Example]) -> list[torch.Tensor]:
    torch.manual_seed(3)
    adapted = add_lora(model, 2, 4)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    for parameter in trained:
        torch.nn.init.normal_(parameter, std=0.1)
    losses, _ = token_losses(adapted, collate(items[:1]))
    losses.sum().backward()
    return [losses.detach(), *(parameter.grad for parameter in trained if parameter.grad is not None)]


def test_two_processes_agree_and_hold_a_base_together(tiny_base: Path) -> None:
    first, second = together(2, _agree, tiny_base)
    for one in (first, second):
        assert one["told"] == {"plan": 0}
        assert one["collected"] == [0, 10]
        assert one["start"] == [1.0, 1.0, 1.0]
        assert one["loss"] == 0.5
        assert one["gradients"] == [[2.0] * 3, [6.0] * 2]
        assert one["is_sharded"] == (False, True)
        assert one["held"] < 0.6
        assert one["apart"] < 1e-5
        for bits in one["bits"]:
            assert bits.bits_per_byte == pytest.approx(one["alone"].bits_per_byte, rel=1e-6)
            assert bits.end_nats == pytest.approx(one["alone"].end_nats, rel=1e-6)
            assert (bits.tokens, bits.text_bytes) == (one["alone"].tokens, one["alone"].text_bytes)


def _one_leaves() -> None:
    with join_processes("cpu") as processes:
        if processes.is_main:
            raise UserError("the leader found a mistake")
        processes.all_gather(None)


def test_a_process_that_loses_its_peer_says_so_in_one_line() -> None:
    port = free_port()
    leader, follower = (Child(_one_leaves, (), launcher_environment(number, 2, port)) for number in (0, 1))
    with pytest.raises(UserError, match="a mistake"):
        leader.result()
    with pytest.raises(DoppelError, match="another process of this training has ended"):
        follower.result()
