"""Texts as token numbers.

Dimensions in tensor names: N texts, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from transfuse.types import DataError, MissingExtraError


def tokenized(texts: Sequence[str], folder: Path, length: int) -> Tensor:
    """Token numbers of the tokenizer in a Hugging Face folder, cut or padded to `length`.

    Args:
        texts: N of them.
        folder: with `tokenizer.json` and, for the number of the padding, `config.json`.
        length: L.

    Returns:
        (N, L) int64.

    Raises:
        MissingExtraError: the package tokenizers is not installed.
        DataError: the folder holds no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(
            "Texts need the package tokenizers. Install it with: pip install 'transfuse[hf]'"
        ) from error
    missing = [name for name in ("tokenizer.json", "config.json") if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} holds no {' and no '.join(missing)}: it should be a Hugging Face model's folder.")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    padding = json.loads((folder / "config.json").read_text()).get("pad_token_id") or 0
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    tokens_NL = torch.full((len(texts), length), padding)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        tokens_NL[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
    return tokens_NL
