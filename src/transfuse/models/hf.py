"""`model=hf`: a transformer encoder as a Hugging Face folder describes it, and its weights under our names.

Dimensions in tensor names: N texts, L tokens, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.models.key_names import KeyMap
from transfuse.models.network import Backbone, Network, with_heads
from transfuse.types import DataError, HyperparameterError, MissingExtraError, Task, UnsupportedStructureError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

KEY_MAP: KeyMap = (  # names of Hugging Face's encoders -> ours
    {"pattern": r"^(?:\w+\.)?embeddings\.", "replace": "backbone.stem.embeddings."},
    {"pattern": r"^(?:\w+\.)?encoder\.layer\.(\d+)\.", "replace": r"backbone.stages.\1.layer."},
)


def build_hf(*, input_shape: tuple[int, ...], tasks: tuple[Task, ...], folder: str) -> Network:
    """The encoder with fresh weights: token and position embeddings, its layers, mean over tokens.

    Args:
        input_shape: (tokens,) of one text; inputs are int64 token numbers, padded with the folder's `pad_token_id`.
        tasks: what to predict.
        folder: of a model saved by transformers, with `config.json`; it is read from the disk alone.

    Raises:
        MissingExtraError: transformers is not installed.
        DataError: there is no such folder, or it holds no `config.json`.
        HyperparameterError: inputs are no tokens, or more than the encoder has positions for.
        UnsupportedStructureError: the encoder has no `embeddings` and `encoder.layer`, as BERT and its kin have.

    Reference: Devlin et al. 2019, arXiv 1810.04805; mean over tokens: Reimers and Gurevych 2019, arXiv 1908.10084.
    """
    config = read_config(Path(folder))
    length = config.max_position_embeddings
    if len(input_shape) != 1 or input_shape[0] > length:
        raise HyperparameterError(
            f"model=hf takes texts of at most {length} tokens, (tokens,). Found inputs of shape {tuple(input_shape)}. "
            f"Did you mean data=tweets?"
        )
    embeddings, layers = _parts(_fresh(config), folder)
    padding = 0 if config.pad_token_id is None else config.pad_token_id
    backbone = Backbone(
        stem=Embedded(embeddings, padding),
        stages=[Layer(layer) for layer in layers],
        neck=MeanOfTokens(),
        features=config.hidden_size,
    )
    return with_heads(backbone, tasks)


class Embedded(nn.Module):
    """Tokens (N, L) to (N, L, W + 1): embeddings, and in the last place whether the token is one (1) or padding (0)."""

    def __init__(self, embeddings: nn.Module, padding: int) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.padding = padding

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """(N, L, W + 1)."""
        hidden_NLW: Tensor = self.embeddings(tokens_NL)
        # a text always has its first token, so that no mean is over nothing
        mask_NL = (tokens_NL != self.padding).index_fill(1, torch.zeros(1, dtype=torch.long).to(tokens_NL), True)
        return torch.cat([hidden_NLW, mask_NL.to(hidden_NLW)[..., None]], dim=-1)


class Layer(nn.Module):
    """One layer of the encoder, (N, L, W + 1) to the same; padding is not attended to."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, masked_NLW: Tensor) -> Tensor:
        """(N, L, W + 1)."""
        hidden_NLW, mask_NL = masked_NLW[..., :-1], masked_NLW[..., -1]
        # added to the logits: 0 for tokens, the lowest number for padding
        bias_N11L = (1 - mask_NL)[:, None, None, :] * torch.finfo(hidden_NLW.dtype).min
        output = self.layer(hidden_NLW, bias_N11L)
        output_NLW: Tensor = output if isinstance(output, Tensor) else output[0]
        return torch.cat([output_NLW, mask_NL[..., None]], dim=-1)


class MeanOfTokens(nn.Module):
    """(N, L, W + 1) to features (N, W): the mean over what is no padding."""

    def forward(self, masked_NLW: Tensor) -> Tensor:
        """(N, W)."""
        hidden_NLW, mask_NL1 = masked_NLW[..., :-1], masked_NLW[..., -1:]
        return (hidden_NLW * mask_NL1).sum(1) / mask_NL1.sum(1)


def read_config(folder: Path) -> PretrainedConfig:
    """The encoder's `config.json`, which never runs code of the folder's own.

    Raises:
        MissingExtraError: transformers is not installed.
        DataError: the folder holds none, or a broken one.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise MissingExtraError(
            "model=hf and base_models=hf need the package transformers. Install it with: pip install 'transfuse[hf]'"
        ) from error
    if not (folder / "config.json").is_file():
        raise DataError(
            f"{folder} holds no config.json. It should be the folder of a model that transformers saved, or that "
            f"`hf download <name> --local-dir {folder}` fetched."
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{folder}/config.json cannot be read: {error}") from error


def _fresh(config: PretrainedConfig) -> PreTrainedModel:
    from transformers import AutoModel

    # drawn from torch's global stream, which the caller sets
    model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False)
    return model


def _parts(model: PreTrainedModel, folder: str) -> tuple[nn.Module, Iterable[nn.Module]]:
    """The embeddings and the layers; a pooler on top is left out."""
    modules = dict(model.named_modules())
    if "embeddings" not in modules or not isinstance(modules.get("encoder.layer"), nn.ModuleList):
        raise UnsupportedStructureError(
            f"model=hf is for encoders with `embeddings` and `encoder.layer`, such as BERT, RoBERTa and MiniLM. "
            f"Found {type(model).__name__} in {folder}."
        )
    layers = modules["encoder.layer"]
    assert isinstance(layers, nn.ModuleList)
    return modules["embeddings"], layers
