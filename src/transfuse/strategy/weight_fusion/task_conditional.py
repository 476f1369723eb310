"""A network that rebuilds the weights of each task when it is asked for it.

Dimensions in tensor names: T sets of weights, P fused elements, W words of 32 mask bits, S running statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from transfuse.state_dict import batch_norm_statistics

_BITS = 32


class TaskConditional(nn.Module):
    """Inputs (N, ...) to task -> (N, C): task t's outputs come from the weights `b + r_t m_t u`.

    Its parameters are one set of weights and the masks as words of 32 bits, P + T P / 32 numbers; the unified vector u
    lies beside the base b as a buffer.

    Args:
        network: with the base's weights and a head for each task; it is kept, not copied.
        keys: of the network's tensors that are rebuilt, in the order of the flat vectors.
        unified_P: u.
        masks_TP: m, booleans.
        rescalers_T: r.
        owners: task -> index of its weights.
    """

    unified_P: Tensor
    rescalers_T: Tensor
    statistics_TS: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        keys: Sequence[str],
        unified_P: Tensor,
        masks_TP: Tensor,
        rescalers_T: Tensor,
        owners: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.network = network
        self.keys = tuple(keys)
        self.owners = dict(owners)
        self.register_buffer("unified_P", unified_P)
        self.register_buffer("rescalers_T", rescalers_T)
        self.masks_TW = nn.Parameter(pack_bits(masks_TP), requires_grad=False)
        state = network.state_dict()
        means = batch_norm_statistics(state)
        self.statistics = (*means, *means.values())
        own_S = torch.cat([torch.empty(0, device=unified_P.device), *(state[key] for key in self.statistics)])
        self.register_buffer("statistics_TS", own_S.repeat(len(masks_TP), 1))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Outputs of each task by its own weights; each set of weights is rebuilt once."""
        outputs = {
            owner: functional_call(self.network, self.weights(owner), (inputs,))
            for owner in dict.fromkeys(self.owners.values())
        }
        return {task: outputs[owner][task] for task, owner in self.owners.items()}

    def weights(self, owner: int) -> dict[str, Tensor]:
        """Key -> tensor of one set: what differs from the base, and the statistics that belong to it."""
        state = self.network.state_dict(keep_vars=True)
        mask_P = unpack_bits(self.masks_TW[owner], len(self.unified_P))
        # b + r m u
        delta_P = self.unified_P * mask_P * self.rescalers_T[owner]
        rebuilt = {
            key: (state[key] + piece.view(state[key].shape)).to(state[key].dtype)
            for key, piece in _pieces(delta_P, state, self.keys)
        }
        return rebuilt | dict(_pieces(self.statistics_TS[owner], state, self.statistics))

    def take_statistics(self, owner: int, state: Mapping[str, Tensor]) -> None:
        """Takes the running statistics of one set of weights from a state dict of the network."""
        for key, piece_F in _pieces(self.statistics_TS[owner], state, self.statistics):
            piece_F.copy_(state[key])


def _pieces(flat: Tensor, state: Mapping[str, Tensor], keys: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of these keys as views of a flat vector."""
    sizes = [state[key].numel() for key in keys]
    return ((key, piece.view(state[key].shape)) for key, piece in zip(keys, torch.split(flat, sizes), strict=True))


def pack_bits(bits_TP: Tensor) -> Tensor:
    """Booleans (T, P) as words of 32 bits, the first bit the lowest: (T, ceil(P / 32)) int32.

    Example:
        >>> pack_bits(torch.tensor([[True, False, True]]))
        tensor([[5]], dtype=torch.int32)
    """
    num_rows, num_bits = bits_TP.shape
    padded = torch.zeros(num_rows, -(-num_bits // _BITS) * _BITS, dtype=torch.bool)
    padded[:, :num_bits] = bits_TP
    words_TW = np.packbits(padded.numpy(), axis=1, bitorder="little").view("<i4").astype(np.int32)
    return torch.from_numpy(words_TW).to(bits_TP.device)


def unpack_bits(words_W: Tensor, num_bits: int) -> Tensor:
    """(P,) booleans of one row of `pack_bits`.

    Example:
        >>> unpack_bits(torch.tensor([5], dtype=torch.int32), 3)
        tensor([ True, False,  True])
    """
    places = torch.arange(_BITS, dtype=torch.int32, device=words_W.device)
    return (words_W[:, None] >> places).bitwise_and_(1).view(-1)[:num_bits].bool()
