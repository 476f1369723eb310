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


def test_a_penalty_is_minimized_too_and_not_reported(cpu: Fit) -> None:
    targets = torch.arange(60) % 3
    logits_NMC = torch.stack([torch.zeros(60, 3), nn.functional.one_hot(targets, 3) * 2.0], dim=1)
    split = Split(inputs=logits_NMC, targets={"class": targets}, ids=torch.arange(60))
    settings = Training(epochs=None, steps=200, batch_size=60, lr=0.1, keep="last")
    task = Task(name="class", kind="classification", outputs=3)
    combiner = Weighted(2)
    target_M = torch.tensor([1.0, -1.0])
    module = FusionModule(combiner, task, settings, penalty=lambda: 1e3 * (combiner.scores_M - target_M).square().sum())
    result = cpu(module, split, split, settings=settings, seed=0, name="pulled")
    torch.testing.assert_close(result.network.scores_M.detach(), target_M, rtol=0, atol=1e-3)
    plain = nn.functional.cross_entropy(result.network(logits_NMC.transpose(0, 1)), targets)
    torch.testing.assert_close(torch.tensor(result.validation_loss), plain.detach(), rtol=1e-5, atol=1e-6)


def test_the_optimizer_has_the_betas(cpu: Fit) -> None:
    # one step of Adam from zero is lr whatever the betas; the second depends on both
    targets = torch.zeros(8, dtype=torch.int64)
    split = Split(
        inputs=torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0)),
        targets={"class": targets},
        ids=torch.arange(8),
    )
    settings = Training(epochs=None, steps=2, batch_size=8, lr=0.5, schedule="constant", keep="last")
    task = Task(name="class", kind="classification", outputs=3)
    combiner, twin = Weighted(2), Weighted(2)
    module = FusionModule(combiner, task, settings, betas=(0.5, 0.6))
    cpu(module, split, split, settings=settings, seed=0, name="betas")
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.5, betas=(0.5, 0.6))
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(split.inputs.transpose(0, 1)), targets).backward()
        optimizer.step()
    torch.testing.assert_close(combiner.scores_M, twin.scores_M, rtol=1e-5, atol=1e-6)
