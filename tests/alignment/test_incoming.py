from __future__ import annotations

import pytest
import torch

from tests.alignment.networks import OWN, SHIPPED, seeded
from transfuse.alignment import incoming, specify
from transfuse.alignment.incoming import Incoming

ALL = {**SHIPPED, **OWN}


def of(name: str) -> Incoming:
    make, inputs = ALL[name]
    network = seeded(make)
    return incoming(network, specify(network, inputs, torch.Generator()), inputs)


def test_layers_make_the_units_that_they_write() -> None:
    found = of("mlp")
    first, second = found.order
    assert found.keys[first] == {"backbone.stages.0.0.weight", "backbone.stages.0.0.bias"}
    assert found.keys[second] == {"backbone.stages.1.0.weight", "backbone.stages.1.0.bias"}
    assert found.products == ()


def test_a_stream_is_made_by_all_that_write_to_it_and_not_by_its_readers() -> None:
    found = of("vit")
    stream = found.order[0]
    writers = {"backbone.stem.projection.weight", "backbone.stem.position_embedding"}
    for stage in range(2):
        writers |= {f"backbone.stages.{stage}.attention.out.weight", f"backbone.stages.{stage}.mlp.2.weight"}
    assert writers <= found.keys[stream]
    readers = {key for key in found.keys[stream] if "query" in key or "mlp.0" in key or key.startswith("heads")}
    assert not readers
    hidden = next(name for name in found.order if name.endswith("mlp.0.weight@0"))
    assert found.keys[hidden] == {"backbone.stages.0.mlp.0.weight", "backbone.stages.0.mlp.0.bias"}
    assert found.products == ("scaled_dot_product_attention",)


def test_weights_are_followed_through_slices_transposed_layers_and_embeddings() -> None:
    tied = {"embedding.weight", "hidden.weight", "hidden.bias"}  # the layer before a head whose rows are the embedding
    assert of("tied").keys["embedding.weight@1"] == tied
    deconvolution = of("deconvolution")
    assert {"up.weight", "up.bias", "norm.weight"} <= deconvolution.keys["up.weight@1"]
    assert "up.weight" not in deconvolution.keys["down.weight@0"]

    class Sliced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Linear(5, 8)
            self.position = torch.nn.Parameter(torch.randn(9, 8))
            self.matrix = torch.nn.Parameter(torch.randn(6, 8))
            self.head = torch.nn.Linear(6, 3)

        def forward(self, sequence: torch.Tensor) -> torch.Tensor:
            hidden = torch.tanh(self.stem(sequence) + self.position[: sequence.shape[1]])
            return self.head(torch.tanh(hidden @ self.matrix.T).mean(1))

    network, inputs = Sliced(), torch.randn(4, 9, 5)
    found = incoming(network, specify(network, inputs, torch.Generator()), inputs)
    assert found.keys["position@1"] == {"stem.weight", "stem.bias", "position"}
    assert found.keys["matrix@0"] == {"matrix"} and found.products == ()


@pytest.mark.parametrize(("name", "product"), [("chunk", "matmul"), ("class_token", "multi_head_attention_forward")])
def test_attention_is_seen_however_it_is_written(name: str, product: str) -> None:
    assert of(name).products == (product,)


def test_units_that_no_call_returns_come_last() -> None:
    found = of("class_token")
    unseen = [name for name in found.order if not found.keys[name]]
    assert unseen and list(found.order[-len(unseen) :]) == unseen
