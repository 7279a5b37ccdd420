"""Cutting long sessions, batching, and what must hold whatever the lengths are."""

import random

from hypothesis import given
from hypothesis import strategies as st

from doppel.transcript import ME, Encoded, Header, Transcript, Turn
from training.lora.examples import Example, collate, cut, cut_at_random, micro_batches, plan_steps, spread_sample


@st.composite
def encoded_sessions(draw: st.DrawFn) -> Encoded:
    """Sessions of distinct token ids, so that every token can be found again."""
    opening = draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    mine = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    loss_mask = [0] * opening
    ends, sizes = [], []
    for length, is_mine in zip(lengths, mine, strict=True):
        loss_mask += [1 if is_mine else 0] * length
        ends.append(len(loss_mask))
        sizes.append(length * 3 if is_mine else 0)
    return Encoded(list(range(len(loss_mask))), loss_mask, opening, ends, sizes)


@given(encoded_sessions(), st.integers(24, 80))
def test_every_supervised_token_is_learned_once_and_nothing_is_truncated(encoded: Encoded, limit: int) -> None:
    pieces = cut(encoded, limit)
    learned = [token for piece in pieces for token, role in zip(piece.ids, piece.loss_mask, strict=True) if role]
    assert learned == [token for token, role in zip(encoded.ids, encoded.loss_mask, strict=True) if role]
    assert {token for piece in pieces for token in piece.ids} == set(encoded.ids)
    assert sum(piece.text_bytes for piece in pieces) == encoded.text_bytes
    for piece in pieces:
        assert len(piece.ids) <= limit
        assert piece.ids[: encoded.opening] == encoded.ids[: encoded.opening]
        body = piece.ids[encoded.opening :]
        assert body == list(range(body[0], body[0] + len(body)))


@given(encoded_sessions(), st.integers(24, 80), st.randoms())
def test_pieces_cut_at_random_hold_every_token_once(encoded: Encoded, limit: int, draw: random.Random) -> None:
    pieces = cut_at_random(encoded, limit, draw)
    assert [token for piece in pieces for token in piece.ids[encoded.opening :]] == encoded.ids[encoded.opening :]
    assert [role for piece in pieces for role in piece.loss_mask[encoded.opening :]] == encoded.loss_mask[
        encoded.opening :
    ]
    assert sum(piece.text_bytes for piece in pieces) == encoded.text_bytes
    assert all(len(piece.ids) <= limit for piece in pieces)
    assert all(piece.ids[: encoded.opening] == encoded.ids[: encoded.opening] for piece in pieces)


def test_another_draw_cuts_elsewhere() -> None:
    ends = [2 + 10 * number for number in range(1, 31)]
    encoded = Encoded(list(range(302)), [0, 0] + [1] * 300, 2, ends, [10] * 30)
    first_lengths = {len(cut_at_random(encoded, 102, random.Random(seed))[0].ids) for seed in range(40)}
    assert len(first_lengths) > 5
    assert max(first_lengths) == 102


@given(encoded_sessions())
def test_pieces_end_at_turn_ends_when_turns_fit(encoded: Encoded) -> None:
    limit = 200
    ends = set(encoded.turn_ends)
    assert all(piece.ids[-1] + 1 in ends for piece in cut(encoded, limit))


def test_a_later_piece_carries_the_turns_before_it() -> None:
    ends = [2 + 10 * number for number in range(1, 11)]
    encoded = Encoded(list(range(102)), [0, 0] + [1] * 100, 2, ends, [10] * 10)
    first, second, *_ = cut(encoded, 42)
    assert first.ids == list(range(32))
    assert second.ids == [0, 1, *range(22, 62)]
    assert second.loss_mask == [0] * 12 + [1] * 30


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 600))
def test_micro_batches_hold_everything_within_the_limit(lengths: list[int], limit: int) -> None:
    items = [Example([0] * length, [1] * length, length) for length in lengths]
    groups = micro_batches(items, limit)
    assert sorted(len(example.ids) for group in groups for example in group) == sorted(lengths)
    for group in groups:
        assert len(group) == 1 or sum(len(example.ids) for example in group) <= limit


def test_steps_hold_every_example_in_order() -> None:
    items = [Example([number] * (number % 7 + 1), [1] * (number % 7 + 1), 1) for number in range(50)]
    steps = list(plan_steps(items, 8, 16))
    numbers = [sorted(example.ids[0] for group in step for example in group) for step in steps]
    assert numbers == [list(range(at, min(at + 8, 50))) for at in range(0, 50, 8)]


def test_collate_lays_examples_end_to_end() -> None:
    batch = collate([Example([5, 6, 7], [0, 1, 2], 1), Example([8, 9], [1, 1], 1)])
    assert batch.ids.tolist() == [5, 6, 7, 8, 9]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.lengths == [3, 2]
    assert batch.targets.tolist() == [1, 2, 4]  # nothing predicts the first token of a sequence
    assert batch.loss_mask.tolist() == [1, 2, 1]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 500))
def test_spread_is_a_subset_of_about_the_size_asked_for(lengths: list[int], tokens: int) -> None:
    items = [Example([number] * length, [1] * length, 1) for number, length in enumerate(lengths)]
    chosen = spread_sample(items, tokens)
    assert chosen
    assert [example.ids[0] for example in chosen] == sorted({example.ids[0] for example in chosen})
    if sum(lengths) <= tokens:
        assert chosen == items


def test_only_the_personas_turns_carry_loss(tiny_tokenizer: "object") -> None:
    transcript = Transcript(tiny_tokenizer)  # type: ignore[arg-type]
    turns = (Turn("Ramito", ("how are you",)), Turn(ME, ("fine", "谢谢")), Turn("Ramito", ("good",)))
    encoded = transcript.encode(Header(kind="dm"), turns)
    learned = [token for token, role in zip(encoded.ids, encoded.loss_mask, strict=True) if role]
    assert transcript.tokenizer.decode(learned) == " fine\n 谢谢\n\n"
    assert encoded.text_bytes == len(b"fine" + "谢谢".encode())
