"""The adapter that fidelity tests examine."""

import pytest

from tests.training.fidelity.cases import load_random_adapter
from training.fidelity.adapted_model import AdaptedModel


@pytest.fixture(scope="package")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    """A tiny random Gemma 3 with a random LoRA."""
    return load_random_adapter(tmp_path_factory.mktemp("adapted"), "gemma3")
