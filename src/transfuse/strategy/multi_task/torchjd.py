"""`multi_task/torchjd`: an aggregator of the package torchjd."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.jacobian_rule import Directed, JacobianRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError, MissingExtraError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_OF_MODULES = frozenset(vars(nn.Module()))


@dataclass(frozen=True, kw_only=True)
class TorchJD(JacobianRule):
    """An aggregator of torchjd in our step: right on several devices, with accumulation, and after a resume.

    A weighting of the Gramian gets ours (float64), a weighting of the Jacobian or any other aggregator the rows; both
    see the tasks that have labels in the step. Where an aggregator draws, it draws from the run's own stream. Its
    constants are not known: `scale=sum` is what the aggregator returns, as `published`.

    Attributes:
        aggregator: of torchjd, such as `torchjd.aggregation.Krum(n_byzantine=1)`; not changed.

    Reference:
        torchjd 0.18, https://torchjd.org; Quinton & Rey 2024, 2406.16232.
    """

    aggregator: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        bases = _bases()
        if not isinstance(self.aggregator, bases.Aggregator):
            raise HyperparameterError(
                f"`aggregator` should be an aggregator of torchjd, such as torchjd.aggregation.Krum. "
                f"Found `aggregator = {self.aggregator!r}`."
            )
        if self.heads == "weighted" and not isinstance(self.aggregator, bases.WeightedAggregator):
            raise HyperparameterError(f"`heads` should be own: {self.aggregator} has no weights. Found `weighted`.")

    def init(self, tasks: tuple[str, ...]) -> AggregatorState:
        """A copy of the aggregator."""
        return AggregatorState(tasks, copy.deepcopy(self.aggregator))

    def factor(self, tasks: int) -> float:
        """Unknown."""
        return 1.0

    def solve(self, jacobian_TP: Tensor, state: RuleState, step: StepInfo) -> Directed:
        """Asks the aggregator; one task's direction is its gradient, and where it fails to be finite, the plain sum."""
        assert isinstance(state, AggregatorState), "made by init"
        if len(jacobian_TP) > 1:
            seed = int(torch.randint(2**62, (), generator=step.generator))
            with torch.no_grad(), _streams(seed, jacobian_TP.device):
                found = _aggregated(state.aggregator, jacobian_TP)
            if bool(found.direction_P.isfinite().all()):
                return found
        ones_T = torch.ones(len(jacobian_TP), dtype=torch.float64)
        return Directed(direction_P=jacobian_TP.sum(dim=0), weights_T=ones_T)


class AggregatorState(RuleState):
    """An aggregator, saved by the plain attributes and buffers of all its modules.

    Args:
        names: of all tasks.
        aggregator: is changed.
    """

    def __init__(self, names: tuple[str, ...], aggregator: nn.Module) -> None:
        super().__init__(names)
        self.aggregator = aggregator

    def state_dict(self) -> dict[str, object]:
        """Names, and copies of all that is plain."""
        modules = {
            name: {"attributes": _plain(vars(module)), "buffers": _plain(module._buffers)}
            for name, module in self.aggregator.named_modules()
        }
        return {**super().state_dict(), "modules": modules}

    def load_state_dict(self, saved: Mapping[str, object]) -> None:
        """Goes on from `state_dict`."""
        super().load_state_dict(saved)
        modules = saved["modules"]
        assert isinstance(modules, dict)
        for name, module in self.aggregator.named_modules():
            vars(module).update(copy.deepcopy(modules[name]["attributes"]))
            module._buffers.update(copy.deepcopy(modules[name]["buffers"]))


def _bases() -> Any:
    try:
        import torchjd.aggregation
    except ImportError as error:
        raise MissingExtraError(
            "multi_task/torchjd needs the package torchjd. Install it with: pip install 'transfuse[mtl]'"
        ) from error
    return torchjd.aggregation


@contextmanager
def _streams(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own streams, which aggregators draw from, start at `seed`; afterwards they are where they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if devices:
            torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
        yield


def _aggregated(aggregator: Any, jacobian_TP: Tensor) -> Directed:
    from transfuse.training.jacobian import gramian

    bases = _bases()
    if isinstance(aggregator, bases.GramianWeightedAggregator):
        weights_T = aggregator.gramian_weighting(gramian(jacobian_TP))
    elif isinstance(aggregator, bases.WeightedAggregator):
        weights_T = aggregator.weighting(jacobian_TP)
    else:
        return Directed(direction_P=aggregator(jacobian_TP))
    return Directed(direction_P=weights_T.to(jacobian_TP) @ jacobian_TP, weights_T=weights_T.double().cpu())


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of what a checkpoint may hold; modules, functions and what every module has are left out."""
    return {key: copy.deepcopy(value) for key, value in values.items() if key not in _OF_MODULES and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str, Tensor, torch.dtype, torch.device, torch.Size))
