"""Publishes a trained adapter: weights, manifest, habits, guard, metrics.jsonl and report.html."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import PeftModel

from doppel.adapters.guard import build_guard
from doppel.adapters.habits import read_habits, write_habits
from doppel.adapters.versions import Manifest, list_versions, publishing
from doppel.i18n import tr
from doppel.reports.html import REPORT_PAGE, Section, page
from training.dataset.files import dataset_digest
from training.lora.bits_per_byte import HeldOutScore
from training.lora.conditions import header_vocabulary
from training.lora.model import save_adapter
from training.run.metrics import FILE as METRICS
from training.run.run_state import RunState
from training.run.setup import TrainingSetup


def make_manifest(persona: str, archive_digest: str, setup: TrainingSetup, state: RunState) -> Manifest:
    """What is known of an adapter, and of its checkpoints, before it is trained.

    Args:
        persona: the persona's name.
        archive_digest: of the archive settings in config.yaml.
        setup: what the adapter is trained on.
        state: its plan, and the base's score.
    """
    train = setup.sessions["train"]
    return Manifest(
        persona=persona,
        base=setup.base,
        transcript=setup.transcript.format,
        template=setup.transcript.template,
        header_vocabulary=header_vocabulary(session.header for session in train),
        dataset={
            "digest": dataset_digest(setup.data_dir),
            "archive": archive_digest,
            "sessions": len(train),
            "messages": setup.messages,
            **_other_data(setup),
        },
        training={**msgspec.to_builtins(state.plan), **_parent(state)},
        fidelity={} if state.base_score is None else {"before": msgspec.to_builtins(state.base_score)},
    )


def publish_adapter(
    adapters_dir: Path,
    model: PeftModel,
    weights: Mapping[str, torch.Tensor],
    manifest: Manifest,
    setup: TrainingSetup,
    *,
    score: HeldOutScore | None,
    report: Sequence[Section],
    in_use: bool,
) -> Path:
    """Publishes the adapter as a new version and returns its folder.

    Args:
        adapters_dir: the persona's published versions.
        model: with the trained adapter.
        weights: the adapter's exact weights by parameter name.
        manifest: from `make_manifest`.
        setup: what the adapter was trained on.
        score: of the adapter on the test examples; None if there are none.
        report: sections of report.html.
        in_use: whether the new version comes into use at once.

    Raises:
        DoppelError: the folder cannot be written.
    """
    if score is not None:
        fidelity = {**manifest.fidelity, "after": msgspec.to_builtins(score)}
        manifest = msgspec.structs.replace(manifest, fidelity=fidelity)
    # PEFT would store the base's folder on this machine, which may name the owner
    model.peft_config["default"].base_model_name_or_path = setup.base.id
    with publishing(adapters_dir, manifest, in_use=in_use) as staging:
        save_adapter(model, staging, weights)
        write_habits(staging, read_habits(setup.data_dir))
        build_guard(session.turns for session in setup.sessions["train"]).write(staging)
        if (setup.run_folder / METRICS).exists():
            shutil.copyfile(setup.run_folder / METRICS, staging / METRICS)
        (staging / REPORT_PAGE).write_text(_report_page(manifest, report), encoding="utf-8")
    return adapters_dir / list_versions(adapters_dir)[-1]


def _report_page(manifest: Manifest, sections: Sequence[Section]) -> str:
    title = tr("{persona}: training report", persona=manifest.persona)
    subtitle = f"{manifest.base.id} · {manifest.training.get('began_at', '')[:16].replace('T', ' ')}"
    return page(title, subtitle, sections)


def _other_data(setup: TrainingSetup) -> dict[str, Any]:
    """What was trained on besides the owner's messages."""
    mixed = {"mix": msgspec.to_builtins(setup.sources)} if setup.sources else {}
    return {**mixed, **({"replay": setup.settings.replay} if setup.settings.replay else {})}


def _parent(state: RunState) -> dict[str, Any]:
    """The adapter that this one started from, without its folder."""
    parent = state.parent
    return {} if parent is None else {"parent": {"name": parent.name, "weights": parent.weights}}
