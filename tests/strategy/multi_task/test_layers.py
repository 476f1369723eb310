from __future__ import annotations

from transfuse.strategy.multi_task.layers import by_layer, layer_of


def test_a_layer_is_the_name_without_its_last_part() -> None:
    assert layer_of("backbone.3.weight") == "backbone.3"
    assert layer_of("scale") == ""


def test_parameters_of_a_layer_keep_their_order() -> None:
    assert by_layer(["b.weight", "a.weight", "b.bias"]) == {"b": ("b.weight", "b.bias"), "a": ("a.weight",)}
