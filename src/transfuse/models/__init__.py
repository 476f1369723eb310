"""Networks: an architecture as data, the shipped builders, predictions, loading of weights."""

from __future__ import annotations

from transfuse.models.architecture import Architecture
from transfuse.models.cnn import build_cnn
from transfuse.models.custom import Custom, build_custom
from transfuse.models.hf import build_hf
from transfuse.models.load_report import LoadReport, TensorPair
from transfuse.models.loading import load, load_strict
from transfuse.models.mlp import build_mlp
from transfuse.models.network import Backbone, Head, Network
from transfuse.models.predict import predict
from transfuse.models.resnet import build_resnet
from transfuse.models.state_files import read_state
from transfuse.models.vit import build_vit

__all__ = [
    "Architecture",
    "Backbone",
    "Custom",
    "Head",
    "LoadReport",
    "Network",
    "TensorPair",
    "build_cnn",
    "build_custom",
    "build_hf",
    "build_mlp",
    "build_resnet",
    "build_vit",
    "load",
    "load_strict",
    "predict",
    "read_state",
]
