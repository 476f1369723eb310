from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from transfuse.strategy.weight_fusion import TaskConditional
from transfuse.strategy.weight_fusion.task_conditional import pack_bits, unpack_bits


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 2, bias=False)
        self.again = nn.Linear(2, 2, bias=False)
        self.again.weight = self.body.weight

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.again(self.body(inputs)), "b": self.body(inputs)}


def made() -> TaskConditional:
    network = TwoHeads()
    with torch.no_grad():
        network.body.weight.copy_(torch.eye(2))
    return TaskConditional(
        network,
        keys=["body.weight"],
        unified_P=torch.tensor([1.0, 2.0, 3.0, 4.0]),
        masks_TP=torch.tensor([[True, False, False, True], [False, True, False, False]]),
        rescalers_T=torch.tensor([1.0, 0.5]),
        owners={"a": 0, "b": 1},
    ).eval()


def test_each_task_uses_its_own_weights_and_ties_hold() -> None:
    outputs = made()(torch.tensor([[1.0, 1.0]]))
    assert outputs["a"].tolist() == [[4.0, 25.0]]  # diag(2, 5) twice
    assert outputs["b"].tolist() == [[2.0, 1.0]]  # [[1, 1], [0, 1]]


def test_it_is_saved_loaded_and_copied(tmp_path) -> None:
    network, inputs = made(), torch.tensor([[1.0, 3.0]])
    expected = network(inputs)
    save_file({key: value.clone() for key, value in network.state_dict().items()}, tmp_path / "m.safetensors")
    other = made()
    other.load_state_dict({key: torch.zeros_like(value) for key, value in other.state_dict().items()})
    assert not torch.equal(other(inputs)["a"], expected["a"])
    other.load_state_dict(load_file(tmp_path / "m.safetensors"))
    for again in (other(inputs), copy.deepcopy(network)(inputs)):
        assert all(torch.equal(again[task], expected[task]) for task in expected)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 100])
def test_bits_come_back(size: int) -> None:
    bits_TP = torch.rand(3, size, generator=torch.Generator().manual_seed(size)) < 0.5
    words_TW = pack_bits(bits_TP)
    assert words_TW.shape == (3, -(-size // 32)) and words_TW.dtype == torch.int32
    for words_W, bits_P in zip(words_TW, bits_TP, strict=True):
        assert torch.equal(unpack_bits(words_W, size), bits_P)
