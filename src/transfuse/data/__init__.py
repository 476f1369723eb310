"""Data sets: one a file, and what they share."""

from __future__ import annotations

from transfuse.data.arrays import Arrays
from transfuse.data.dataset import Dataset
from transfuse.data.digits import Digits
from transfuse.data.digits_halves import DigitsHalves
from transfuse.data.digits_linear import DigitsLinear
from transfuse.data.digits_noise import DigitsNoise
from transfuse.data.digits_tasks import DigitsTasks
from transfuse.data.fashion_groups import FashionGroups
from transfuse.data.fashion_halves import FashionHalves
from transfuse.data.fashion_lookalike import FashionLookalike
from transfuse.data.fashion_mnist import FashionMnist
from transfuse.data.fashion_noise import FashionNoise
from transfuse.data.fashion_rotated import FashionRotated
from transfuse.data.mnist_to_digits import MnistToDigits
from transfuse.data.multi_fashion import MultiFashion
from transfuse.data.solar_flare import SolarFlare
from transfuse.data.splits import fingerprint
from transfuse.data.tweets import Tweets
from transfuse.data.yeast import Yeast

__all__ = [
    "Arrays",
    "Dataset",
    "Digits",
    "DigitsHalves",
    "DigitsLinear",
    "DigitsNoise",
    "DigitsTasks",
    "FashionGroups",
    "FashionHalves",
    "FashionLookalike",
    "FashionMnist",
    "FashionNoise",
    "FashionRotated",
    "MnistToDigits",
    "MultiFashion",
    "SolarFlare",
    "Tweets",
    "Yeast",
    "fingerprint",
]
