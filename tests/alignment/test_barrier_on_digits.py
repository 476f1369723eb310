"""What alignment is for, on real data: the loss between two networks that were trained independently."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from transfuse.alignment import match_activations, match_weights, specify


def trained(seed: int, inputs: Tensor, labels: Tensor) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(25):
            for batch in torch.randperm(len(inputs)).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
                optimizer.step()
    return network.eval()


@torch.no_grad()
def barrier(first: dict[str, Tensor], second: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> float:
    """The highest loss above the chord over 11 points."""
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    losses = []
    for step in range(11):
        network.load_state_dict({key: torch.lerp(value, second[key], step / 10) for key, value in first.items()})
        losses.append(float(nn.functional.cross_entropy(network(inputs), labels)))
    return max(loss - losses[0] - (losses[-1] - losses[0]) * step / 10 for step, loss in enumerate(losses))


def test_matching_removes_most_of_the_barrier() -> None:
    images, classes = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(images).float() / 16, torch.from_numpy(classes)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]
    first, second = (trained(seed, inputs[train], labels[train]) for seed in (1, 2))
    specification = specify(first, inputs[:2], torch.Generator())
    one, other = first.state_dict(), second.state_dict()
    plain = barrier(one, other, inputs[test], labels[test])
    by_weights = match_weights(specification, one, other, torch.Generator().manual_seed(0))
    by_activations = match_activations(specification, first, second, inputs[train])
    matched = [
        barrier(one, specification.apply(other, found), inputs[test], labels[test])
        for found in (by_weights, by_activations)
    ]
    assert plain > 0.15
    assert matched[0] < 0.15 * plain and matched[1] < 0.3 * plain
