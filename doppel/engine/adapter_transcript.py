"""Finds the transcript that an adapter was trained with."""

from collections.abc import Sequence

from doppel.adapters.lora_file import Lora
from doppel.adapters.versions import AdapterRefused
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.transcript import Transcript, open_transcript


def adapter_transcript(lora: Lora, opened: Sequence[Transcript]) -> Transcript:
    """The transcript of an adapter: one of those already opened for the base, else a new one.

    Args:
        lora: the adapter.
        opened: at least one, for the base's tokenizer.

    Raises:
        AdapterRefused: the base cannot be used with it, or its chat template has changed since the training.
    """
    transcript = next((known for known in opened if known.format == lora.transcript), None)
    try:
        transcript = transcript or open_transcript(opened[0].tokenizer, lora.transcript)
    except UserError as error:
        raise AdapterRefused(f"{lora.folder}: {error}") from None
    if lora.template and lora.template != transcript.template:  # imported adapters have none
        raise AdapterRefused(
            tr("{path}: the base model's chat template has changed since; train it again", path=lora.folder)
        )
    return transcript
