"""What several tests of the engine get."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from doppel.engine.local.engine import TransformersEngine
from doppel.models.base import identify, load_model, load_tokenizer

Open = Callable[..., TransformersEngine]


@pytest.fixture
def open_engine(tiny_base: Path) -> Iterator[Open]:
    """`open_engine(**options)` makes an engine on the tiny base; closed after the test."""
    opened = []

    def open_(**options: Any) -> TransformersEngine:
        model = load_model(tiny_base, torch.float32)
        engine = TransformersEngine(model, load_tokenizer(tiny_base), identify(tiny_base, "tiny"), **options)
        opened.append(engine)
        return engine

    yield open_
    for engine in opened:
        engine.close()
