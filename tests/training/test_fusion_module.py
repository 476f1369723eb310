from __future__ import annotations

import torch
from torch import Tensor, nn

from transfuse.training import Fit, FusionModule, Training
from transfuse.types import Split, Task


class Weighted(nn.Module):
    """sum_m w_m logits_m, w on the simplex."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.scores_M = nn.Parameter(torch.zeros(members))

    def forward(self, logits_MNC: Tensor) -> Tensor:
        return torch.einsum("m,mnc->nc", self.scores_M.softmax(0), logits_MNC)


def test_a_combiner_learns_which_member_is_right(cpu: Fit) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (200,), generator=generator)
    right = nn.functional.one_hot(targets, 3) * 2.0
    wrong = torch.randn(200, 3, generator=generator)
    logits_NMC = torch.stack([wrong, right], dim=1)
    split = Split(inputs=logits_NMC, targets={"class": targets}, ids=torch.arange(200))
    settings = Training(epochs=20, lr=0.1)
    module = FusionModule(Weighted(2), Task(name="class", kind="classification", outputs=3), settings)
    result = cpu(module, split, split, settings=settings, seed=0, name="stacking")
    weights_M = result.network.scores_M.softmax(0)
    assert weights_M[1] > 0.9
    expected = nn.functional.cross_entropy(result.network(logits_NMC.transpose(0, 1)), targets)
    torch.testing.assert_close(torch.tensor(result.validation_loss), expected.detach(), rtol=1e-5, atol=1e-6)
