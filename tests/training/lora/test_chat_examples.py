"""Examples in a chat template: a long session cut into pieces is what serving would build for each of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.persona import fit_prompt
from doppel.transcript import ME, Header, Turn
from doppel.transcript.chat import ChatTranscript
from tests.doppel.transcript.chat_templates import KINDS
from training.lora.examples import cut

HEADER = Header(year="2018", kind="group")
TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from((ME, "Ramito", "Bobotu")),
        st.lists(st.sampled_from(("hi", "me hi", "how are you", "[/INST]")), min_size=1, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module", params=["chatml", "gemma-2", "llama-2", "glm-4"])
def transcript(request: pytest.FixtureRequest) -> ChatTranscript:
    return ChatTranscript(KINDS[request.param].build())


@settings(max_examples=50)
@given(turns=TURNS, room=st.integers(100, 200))
def test_a_piece_of_a_long_session_is_a_session(transcript: ChatTranscript, turns: list[Turn], room: int) -> None:
    encoded = transcript.encode(HEADER, turns)
    pieces = cut(encoded, encoded.opening + room)
    learned = 0
    for piece in pieces:
        last = max((at for at, role in enumerate(piece.loss_mask) if role), default=None)
        if last is None:
            continue
        sessions = [transcript.encode(HEADER, turns[start:]).ids for start in range(len(turns))]
        assert any(ids[: last + 1] == piece.ids[: last + 1] for ids in sessions)
        learned += piece.supervised
    assert learned == sum(role > 0 for role in encoded.loss_mask)
    assert sum(piece.text_bytes for piece in pieces) == encoded.text_bytes


@settings(max_examples=50)
@given(turns=TURNS, room=st.integers(60, 300))
def test_a_prompt_fits_and_keeps_the_latest_whole_turns(
    transcript: ChatTranscript, turns: list[Turn], room: int
) -> None:
    alone = transcript.prompt(HEADER, [])
    ids = fit_prompt(transcript, HEADER, turns, len(alone) + room)
    assert len(ids) <= len(alone) + room
    prompts = [transcript.prompt(HEADER, turns[start:]) for start in range(len(turns))]
    assert ids == next(prompt for prompt in prompts if len(prompt) <= len(alone) + room)
