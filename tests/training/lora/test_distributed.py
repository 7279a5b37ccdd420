"""Processes that train together agree, and what they compute together is what one computes alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from doppel.config import TrainingSettings
from doppel.errors import DoppelError, UserError
from doppel.models.base import load_model
from tests.processes import Child, free_port, ranks_environment, together
from training.lora import fsdp as shard
from training.lora.bits_per_byte import score
from training.lora.data_parallel import score_in_parallel, split_step
from training.lora.distributed import SINGLE_PROCESS, ProcessGroup, join_processes
from training.lora.examples import Example, balanced_groups, collate
from training.lora.fsdp import device_mesh, is_sharded, should_shard, split
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


class TestShares:
    def test_every_example_is_in_one_share_and_the_shares_are_even(self) -> None:
        items = _examples(50)
        divided = balanced_groups(items, 4)
        assert sorted(id(one) for share in divided for one in share) == sorted(map(id, items))
        loads = [sum(len(one.ids) for one in share) for share in divided]
        assert max(loads) < 1.1 * min(loads)

    def test_the_same_items_are_divided_alike_everywhere(self) -> None:
        assert balanced_groups(_examples(20), 3) == balanced_groups(_examples(20), 3)

    def test_fewer_examples_than_processes_leave_some_without(self) -> None:
        divided = split_step([_examples(2)], 3, 2048, lambda example: len(example.ids))
        assert [len(step) for step in divided] == [1, 1, 0]

    def test_alone_a_step_stays_as_it_is(self) -> None:
        step = [_examples(3), _examples(2)]
        assert split_step(step, 1, 8, lambda example: 1.0)[0] is step


class TestAlone:
    def test_one_process_agrees_with_itself(self) -> None:
        assert SINGLE_PROCESS.leads
        assert SINGLE_PROCESS.tell("this") == "this"
        assert SINGLE_PROCESS.collect(3) == [3]

    def test_gradients_of_sums_become_those_of_the_mean(self) -> None:
        parameter = torch.nn.Parameter(torch.ones(2))
        (parameter * 6).sum().backward()
        loss = SINGLE_PROCESS.average([parameter, torch.nn.Parameter(torch.ones(1))], torch.tensor(12.0), 4)
        assert loss == 3
        assert parameter.grad is not None
        assert parameter.grad.tolist() == [1.5, 1.5]

    def test_without_a_launcher_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with join_processes("cuda:1") as ranks:
            assert ranks == SINGLE_PROCESS


@pytest.mark.parametrize(
    ("device", "environment", "text"),
    [
        ("mps", {}, "`mps` cannot be shared"),
        ("cuda:1", {}, "`cuda:1` cannot be shared"),
        ("cpu", {"ACCELERATE_USE_FSDP": "true"}, "leave that out"),
        ("cuda", {"LOCAL_RANK": "3"}, "more processes than GPUs"),
    ],
)
def test_what_cannot_be_shared_is_one_clear_line(
    device: str, environment: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=text), join_processes(device):
        pass


@pytest.mark.parametrize(
    ("training", "count", "most", "expected"),
    [
        ({}, 2, 14e9, False),
        ({}, 2, 1000.0, True),
        ({}, 1, 1000.0, False),
        ({"quantize": "nf4"}, 2, 1000.0, False),
        ({"split": False}, 2, 1000.0, False),
        ({"split": True}, 2, 14e9, True),
    ],
)
def test_a_large_base_is_split(
    training: dict[str, Any], count: int, most: float, expected: bool, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "SHARD_ABOVE", most)
    assert should_shard(TrainingSettings(**training), tiny_base, ProcessGroup(0, count)) is expected


def _agree(base: Path) -> dict[str, Any]:
    order: list[str] = []
    with join_processes("cpu") as ranks:
        told = ranks.tell({"plan": ranks.number})
        collected = ranks.collect(ranks.number * 10)
        with ranks.main_first():
            order.append("led")
        with ranks.one_at_a_time():
            order.append("turn")
        parameters = [torch.nn.Parameter(torch.full((3,), float(ranks.number + 1))), torch.nn.Parameter(torch.ones(2))]
        ranks.align(parameters)
        start = parameters[0].tolist()
        if ranks.leads:
            (parameters[0] * 4).sum().backward()
        (parameters[1] * 6).sum().backward()
        loss = ranks.average(parameters, torch.tensor(float(ranks.number)), 2)
        gradients = [one.grad.tolist() for one in parameters if one.grad is not None]
        return {
            "told": told,
            "collected": collected,
            "start": start,
            "loss": float(loss),
            "gradients": gradients,
            **_split_like_whole(base, ranks),
        }


def _split_like_whole(base: Path, ranks: ProcessGroup) -> dict[str, Any]:
    """The same losses, gradients and scores from a base that both processes hold together."""
    whole = load_model(base, torch.float32)
    mesh = device_mesh("cpu", ranks)
    with ranks.one_at_a_time():
        parted = load_model(base, torch.float32)
        split(parted, mesh, "cpu")
    items = _examples(6)
    held = sum(one.to_local().numel() for one in parted.parameters() if hasattr(one, "to_local"))
    bits = [
        score_in_parallel(ranks, one, items, lambda share, model=one: score(model, share, 64))
        for one in (whole, parted)
    ]
    alone = score(whole, items, 64)
    one, other = (_gradients(model, items) for model in (whole, parted))
    return {
        "is_sharded": (is_sharded(whole), is_sharded(parted)),
        "held": held / sum(one.numel() for name, one in whole.named_parameters() if one.dim() > 1 and "layers" in name),
        "bits": bits,
        "alone": alone,
        "apart": max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)),
    }


def _gradients(model: PreTrainedModel, items: list[Example]) -> list[torch.Tensor]:
    torch.manual_seed(3)
    build_model = add_lora(model, 2, 4)
    trained = [one for one in build_model.parameters() if one.requires_grad]
    for one in trained:
        torch.nn.init.normal_(one, std=0.1)
    losses, _ = token_losses(build_model, collate(items[:1]))
    losses.sum().backward()
    return [losses.detach(), *(one.grad for one in trained if one.grad is not None)]


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
    with join_processes("cpu") as ranks:
        if ranks.leads:
            raise UserError("the leader found a mistake")
        ranks.collect(None)


def test_who_is_left_behind_says_so_in_one_line() -> None:
    port = free_port()
    leader, follower = (Child(_one_leaves, (), ranks_environment(number, 2, port)) for number in (0, 1))
    with pytest.raises(UserError, match="a mistake"):
        leader.result()
    with pytest.raises(DoppelError, match="another process of this training has ended"):
        follower.result()
