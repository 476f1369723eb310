from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.evaluation.predicted import MEMBERS, SHAPE, SIZE, TAGS, result_of
from transfuse.evaluation import analyse
from transfuse.metrics import reliability, risk_coverage
from transfuse.report.figures import confusion_figure, pairs_figure, reliability_diagram, risk_coverage_plot
from transfuse.report.run_figures import write_figures


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_reliability_diagram_writes_the_number_of_examples_at_each_dot() -> None:
    table = reliability(torch.tensor([0.2, 0.95, 0.95, 0.95]), torch.tensor([True, True, True, False]))
    figure = reliability_diagram(table, title="shape")
    assert words(figure) == ["1", "3"]
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dots.get_xydata().tolist() == [pytest.approx([0.2, 1.0]), pytest.approx([0.95, 2 / 3])]
    gaps = figure.axes[0].patches
    assert [bar.get_height() for bar in gaps] == pytest.approx([0.8, 2 / 3 - 0.95])
    assert all(bar.get_hatch() for bar in gaps)


def test_a_risk_coverage_plot_tells_area_and_error() -> None:
    curve = risk_coverage(torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    axes = risk_coverage_plot(curve, title="shape").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0.25, 0], [0.5, 0], [0.75, pytest.approx(1 / 3)], [1, 0.25]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["area 0.1458", "all: 0.2500"]
    never_wrong = risk_coverage(torch.rand(3), torch.zeros(3))
    assert risk_coverage_plot(never_wrong, title="").axes[0].get_ylim()[1] > 0


def test_matrices_hold_their_numbers() -> None:
    confusion = torch.tensor([[5, 1, 0], [0, 7, 0], [0, 0, 0]])
    figure = confusion_figure(confusion, ["disc", "box", "a very long class name"], title="shape")
    assert words(figure) == ["5", "1", "7"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["disc", "box", "a very long .."]
    measure = torch.tensor([[1.0, 0.25, torch.nan], [0.25, 1.0, -0.5], [torch.nan, -0.5, 1.0]])
    assert words(pairs_figure(measure, MEMBERS, title="q")) == ["0.250", "-", "0.250", "-0.500", "-", "-0.500"]
    assert measure[0, 0] == 1  # the measure itself is untouched


def test_large_matrices_write_no_numbers_and_few_names() -> None:
    figure = confusion_figure(torch.eye(50).long(), [str(index) for index in range(50)], title="many")
    assert words(figure) == []
    assert len(figure.axes[0].get_xticks()) == 17


def test_figures_of_one_and_of_several_tasks(tmp_path: Path) -> None:
    write_figures(tmp_path / "one", analyse(result_of(SHAPE), [SHAPE], MEMBERS))
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"calibration.png", "risk_coverage.png", "confusion.png", "diversity.png"}
    image = imread(tmp_path / "one" / "confusion.png")
    assert image.shape[1] == 576 and image.min() < 0.3 < image.max()
    odd = type(SIZE)(name="a/b c", kind="regression", outputs=2)
    write_figures(tmp_path / "two", analyse(result_of(TAGS, odd), [TAGS, odd], MEMBERS))
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "calibration-0-tags.png",
        "risk_coverage-0-tags.png",
        "diversity-0-tags.png",
        "diversity-1-a_b_c.png",
    }


def test_drawing_leaves_pyplot_alone() -> None:
    program = (
        "import sys, torch\n"
        "from transfuse.report.figures import pairs_figure\n"
        "pairs_figure(torch.eye(2), ['a', 'b'], title='')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
