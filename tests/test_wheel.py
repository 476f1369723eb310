"""A wheel of the tree runs from any folder, with its configs inside."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_configs_and_runs_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name.removeprefix("transfuse/conf/") for name in zipfile.ZipFile(wheel).namelist()}
    configs = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name for name in configs if not name.startswith("local/")} <= shipped
    assert "__init__.py" in shipped
    assert "transfuse/report/templates/report.html.jinja" in shipped

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # the dependencies are those of this environment; transfuse itself is the installed wheel
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = "import sys; from transfuse.cli import main; sys.argv[0] = 'transfuse'; main()"
    done = subprocess.run(
        [str(python), "-c", program, "strategy=output_fusion/average", "base_models.count=2", "training.epochs=1",
         "tracking=off"],
        cwd=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = elsewhere.glob("outputs/runs/*/*/record.json")
    assert json.loads(record.read_text())["status"] == "finished"
    program = "import transfuse; print(transfuse.__file__)"
    where = subprocess.run([str(python), "-c", program], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert str(site) in where.stdout
