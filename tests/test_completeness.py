"""One method, one stem in four places; every config composes and builds."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate

from transfuse.config import read
from transfuse.strategy.base import Strategy

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
STRATEGIES = sorted(path.relative_to(CONF / "strategy").with_suffix("") for path in CONF.glob("strategy/*/*.yaml"))
FAMILIES = sorted(path.parent.name for path in ROOT.glob("src/transfuse/strategy/*/base.py"))
COMPONENTS = {"weights", "sharing"}  # groups within a group: parts that several options share; no families
WRAPPERS = {"weight_fusion/aligned"}  # made by the group `align`, not chosen by name
TABLE = (ROOT / "README.md").read_text().partition("## Strategies")[2].partition("\n## ")[0]
METHODS = [str(path) for path in STRATEGIES if path.parent.name not in COMPONENTS]
_AGGREGATOR = "strategy.aggregator={_target_: torchjd.aggregation.TrimmedMean, trim_number: 1}"
_DIGIT_WEIGHTS = "strategy.weights={digit: 1.0, parity: 1.0, value: 1.0}"
NEEDED = {  # what an option needs beside it
    "align/weight_matching": ["strategy=weight_fusion/uniform_soup"],
    "align/activation_matching": ["strategy=weight_fusion/uniform_soup"],
    "align/straight_through": ["strategy=weight_fusion/uniform_soup"],
    "data/arrays": ["data.path=table.csv", "data.target=y"],
    "data/tweets": ["data.tokenizer=folder"],
    "model/custom": ["model.module=torch.nn.Identity"],
    "model/hf": ["model.folder=folder"],
    "base_models/checkpoints": ["base_models.paths=[weights.safetensors]"],
    "base_models/registry": ["base_models.uris=[models:/digits@champion]"],
    "strategy/multi_task/static": ["data=digits_tasks", "strategy=multi_task/static", _DIGIT_WEIGHTS],
    "strategy/multi_task/torchjd": ["strategy=multi_task/torchjd", _AGGREGATOR],
    "strategy/multi_task/scheduled": [
        "data=digits_tasks",
        "strategy=multi_task/scheduled",
        _DIGIT_WEIGHTS.replace("weights", "start"),
        _DIGIT_WEIGHTS.replace("weights", "end"),
    ],
    "strategy/weights/given": ["strategy/weights=given", "strategy.weights.values=[1.0]"],
}
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix()
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.parent.name not in ("hydra", "paths", "local")
)


def overrides(option: str) -> list[str]:
    group, _, name = option.partition("/")
    part, _, inner = name.rpartition("/")
    chosen = f"{group}/{part}={inner}" if part in COMPONENTS else f"{group}={name}"
    return [chosen, *NEEDED.get(option, [])]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_config_composes_and_builds(option: str, tmp_path: Path) -> None:
    if option == "strategy/multi_task/torchjd":
        pytest.importorskip("torchjd")
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*overrides(option), f"paths.outputs={tmp_path}"])
    run = read(config, tmp_path / "run")
    assert isinstance(run.strategy, Strategy)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_source_its_test_and_its_row(method: str) -> None:
    family, stem = method.split("/")
    target = get_object(yaml.safe_load((CONF / "strategy" / f"{method}.yaml").read_text())["_target_"])
    assert target.__module__ == f"transfuse.strategy.{family}.{stem}"
    assert (ROOT / "tests" / "strategy" / family / f"test_{stem}.py").exists()
    assert f"| `{method}` |" in TABLE


def test_every_concrete_strategy_has_its_config() -> None:
    found = set()
    for path in (ROOT / "src/transfuse/strategy").glob("*/*.py"):
        if path.parent.name in COMPONENTS or path.stem.startswith("_"):
            continue
        module = inspect.importlib.import_module(f"transfuse.strategy.{path.parent.name}.{path.stem}")  # type: ignore[attr-defined]
        found |= {
            f"{path.parent.name}/{path.stem}"
            for value in vars(module).values()
            if inspect.isclass(value)
            and value.__module__ == module.__name__
            and issubclass(value, Strategy)
            and not inspect.isabstract(value)
        }
    assert found - WRAPPERS == set(METHODS)


def test_the_table_of_methods_has_no_other_rows() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| `") and "/" in line.split("`")[1]]
    assert {row.split("`")[1] for row in rows if row.split("`")[1].split("/")[0] in FAMILIES} == set(METHODS)


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith(("experiment", "debug"))])
def test_a_yaml_holds_every_field_with_its_default(option: str) -> None:
    content = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    target = get_object(content.pop("_target_"))
    nested = {entry.partition("@")[2].partition(":")[0] for entry in map(_key, content.pop("defaults", []))} - {""}
    defaults = _defaults(target)
    assert set(content) == set(defaults) - nested
    alternatives = {"training/short", "trainer/cpu", "trainer/gpu", "trainer/ddp", "trainer/ddp_cpu", "trainer/auto"}
    alternatives |= {"model/mlp_narrow", "model/mlp_wide"}
    if option in alternatives:  # options of a group whose class has one set of defaults
        return
    for name, value in content.items():
        if value != "???" and not (isinstance(value, str) and "${" in value):
            assert _plain(value) == _plain(defaults[name]), name


def _key(entry: Any) -> str:
    return entry if isinstance(entry, str) else f"{next(iter(entry))}:"


def _defaults(target: Any) -> dict[str, Any]:
    """Name -> default of what a config may set; what the problem gives is left out."""
    if dataclasses.is_dataclass(target):
        return {
            field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            for field in dataclasses.fields(target)
            if field.init
        }
    parameters = inspect.signature(target).parameters.values()
    return {item.name: item.default for item in parameters if item.name not in ("input_shape", "tasks")}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and "_target_" in value:
        return instantiate(value, _convert_="all")
    return dict(value) if isinstance(value, dict) or hasattr(value, "items") else value
