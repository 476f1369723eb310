"""Imports run one way, heavy ones are lazy, and code stays small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "transfuse"
FILES = sorted(SOURCE.rglob("*.py"))

# Each layer may import those before it (and itself).
LAYERS = [
    {"types", "randomness", "suggest", "conformity"},
    {"state_dict", "leaves"},
    {"metrics", "evidence"},
    {"data", "models"},
    {"transferability"},
    {"alignment"},
    {"training"},
    {"base_models"},
    {"strategy"},
    {"evaluation"},
    {"report", "tracking"},
    {"experiment"},
    {"config", "program", "cli", "sweep"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
LONGER = {}  # function or file -> why it may be longer than the limits


def imports(path: Path, *, lazy: bool) -> Iterator[str]:
    """Modules that a file imports: at its top alone, or in functions too; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    top = [item for node in tree.body for item in ([node, *node.body] if isinstance(node, ast.If) else [node])]
    for node in ast.walk(tree) if lazy else top:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imports(path, lazy=False):
        parts = module.split(".")
        if parts[0] == "transfuse" and len(parts) > 1:
            assert RANK[parts[1]] <= RANK[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", sorted((SOURCE / "strategy").rglob("*.py")), ids=lambda path: path.stem)
def test_strategies_know_no_hydra_and_load_lightning_only_to_train(path: Path) -> None:
    assert not {"hydra", "omegaconf", "mlflow"} & {module.split(".")[0] for module in imports(path, lazy=True)}
    training = {module for module in imports(path, lazy=False) if module.startswith("transfuse.training")}
    assert training <= {"transfuse.training.settings", "transfuse.training.step"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_config_instantiates_and_only_the_tracking_knows_mlflow(path: Path) -> None:
    name, found = path.relative_to(SOURCE).as_posix(), set(imports(path, lazy=True))
    if name != "config.py":
        assert "instantiate" not in path.read_text()
    if not name.startswith("tracking/"):
        assert not any(module.split(".")[0] == "mlflow" for module in found)
    if not name.startswith("training/"):
        assert not any(module.split(".")[0] in ("pytorch_lightning", "lightning") for module in found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 350 or str(path.relative_to(SOURCE)) in LONGER
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= 60 or node.name in LONGER, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_global_seed(path: Path) -> None:
    text = path.read_text()
    assert "seed_everything" not in text
    assert "torch.manual_seed" not in text
    assert "np.random.seed" not in text


def test_library_functions_load_no_framework() -> None:
    program = (
        "import sys, torch, transfuse\n"
        "logits = torch.randn(3, 20, 4); labels = torch.arange(20) % 4\n"
        "fused = transfuse.fuse(logits, method='weighted_average', labels=labels)\n"
        "assert fused.logits_NC.shape == (20, 4) and abs(float(fused.weights.sum()) - 1) < 1e-9\n"
        "states = [torch.nn.Linear(2, 2).state_dict() for _ in range(3)]\n"
        "merged = transfuse.merge(states, method='uniform_soup')\n"
        "network = torch.nn.Linear(2, 2)\n"
        "report = transfuse.load(merged, network)\n"
        "assert report.coverage == 1 and torch.equal(network.weight, merged['weight'])\n"
        "heavy = ('hydra', 'omegaconf', 'mlflow', 'pytorch_lightning', 'lightning')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, transfuse; print([name for name in ('torch', 'hydra', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
