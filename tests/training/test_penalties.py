from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.training.penalties import behavior_distance, distillation_loss, spectral_shrinkage, squared_distance


@pytest.fixture
def reference(golden_transfer: Path) -> tuple[dict[str, torch.Tensor], dict]:
    tensors = load_file(golden_transfer / "regularizers.safetensors")
    return tensors, json.loads((golden_transfer / "regularizers.json").read_text())


def test_golden_squared_distance(reference) -> None:
    tensors, values = reference
    target = {key[7:]: value for key, value in tensors.items() if key.startswith("target.")}
    source = {key[7:]: value for key, value in tensors.items() if key.startswith("source.")}
    assert float(squared_distance(target, source)) == pytest.approx(
        values["l2_sp_half_squared_norm_all_parameters"], rel=1e-6
    )


def test_golden_behavior(reference) -> None:
    tensors, values = reference
    features, source = tensors["feature_maps_target"], tensors["feature_maps_source"]
    examples, _, height, width = features.shape
    plain = float(behavior_distance(features, source)) * examples  # the peers sum over the batch
    assert plain * height * width == pytest.approx(values["behavioral_half_squared_norm"], rel=1e-6)
    attended = float(behavior_distance(features, source, tensors["channel_attention"])) * examples
    assert attended == pytest.approx(values["behavioral_channel_attention"], rel=1e-6)


@pytest.mark.parametrize("smallest", [1, 2, 3])
def test_golden_spectral_shrinkage(reference, smallest: int) -> None:
    tensors, values = reference
    found = float(spectral_shrinkage(tensors["features"], smallest))
    assert found == pytest.approx(values["batch_spectral_shrinkage"][str(smallest)], rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_golden_distillation(reference, temperature: float) -> None:
    tensors, values = reference
    found = float(distillation_loss(tensors["student_logits"], tensors["teacher_logits"], temperature))
    assert found == pytest.approx(values["kd_batchmean_times_t2"][str(temperature)], rel=1e-6)


def test_a_student_like_its_teacher_has_no_loss_and_no_gradient() -> None:
    logits_NC = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = distillation_loss(logits_NC, logits_NC.detach().clone(), 3.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6) and float(logits_NC.grad.abs().max()) < 1e-6
