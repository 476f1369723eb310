"""What the README shows is true: its commands run, its programs run, its links and names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_wine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.startswith("transfuse")
]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
QUICK = ["training.epochs=1", "tracking=off", "trainer.progress=false"]
MODULE = """
from torch import nn

class MyNetwork(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with the files that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    wine = load_wine(as_frame=True).frame
    wine["cultivar"] = wine.pop("target").map({0: "barolo", 1: "grignolino", 2: "barbera"})
    wine.to_csv(folder / "wine.csv", index=False)
    (folder / "my_package.py").write_text(MODULE)
    return folder


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> None:
    """Weights of the default model, as a user would have them."""
    call("strategy=output_fusion/average", "base_models.count=2", "paths.store=mine", cwd=folder)
    for name, path in zip(("a", "b"), sorted((folder / "mine").glob("*/model.safetensors")), strict=True):
        (folder / f"{name}.safetensors").write_bytes(path.read_bytes())


def call(*arguments: str, cwd: Path) -> None:
    program = "import sys; sys.path.insert(0, ''); from transfuse.cli import main; sys.argv[0] = 'transfuse'; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, *QUICK], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command: str, folder: Path, request: pytest.FixtureRequest) -> None:
    if "a.safetensors" in command:
        request.getfixturevalue("checkpoints")
    call(*shlex.split(command)[1:], cwd=folder)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.split("\n")[0])
def test_a_program_runs(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = program.replace(
        '"base_models.count=3"', '"base_models.count=2", ' + ", ".join(f'"{item}"' for item in QUICK)
    )
    exec(compile(quick, "README.md", "exec"), {})


def test_there_is_something_to_test() -> None:
    assert len(COMMANDS) >= 8 and len(PROGRAMS) >= 2


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in set(re.findall(r"(?:`|^)make ([a-z-]+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name


def test_links_lead_somewhere() -> None:
    for document in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        for target in re.findall(r"\]\(([^)#]+)\)", document):
            assert target.startswith("https://") or (ROOT / target).exists(), target


def test_named_options_exist() -> None:
    table = README.partition("| group | options |")[2].partition("\n\n")[0]
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        group = re.findall(r"`(\w+)`", cells[0]) if len(cells) == 2 else []
        if len(group) == 1 and group[0] != "strategy":
            for option in re.findall(r"`([a-z_]+)`", cells[1]):
                assert (ROOT / "conf" / group[0] / f"{option}.yaml").exists(), f"{group[0]}={option}"
