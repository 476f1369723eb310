"""The page as a browser shows it: nothing is empty, and nothing runs over a phone's edge."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.report.page import Page
from transfuse.report import comparison, read_sweep
from transfuse.report.html import write_html
from transfuse.report.multi_task import complete

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, and none is found")
# the report has no script: this one is put into a copy of it
PROBE = """<pre id="probe"></pre><script>
addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height, r.right]; };
  document.getElementById("probe").textContent = JSON.stringify({
    images: [...document.images].map(i => [i.naturalWidth, i.naturalHeight, ...box(i)]),
    tables: [...document.querySelectorAll("table")].map(box),
    rows: document.querySelector("table tbody").rows.length,
    page: [document.documentElement.scrollWidth, innerWidth],
  });
});
</script></body>"""


def browse(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'user'}"]
    done = subprocess.run(
        [CHROMIUM, *options, *arguments], capture_output=True, text=True, check=True, timeout=120, cwd=folder
    )
    return done.stdout


@pytest.fixture
def page(sweep) -> Path:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("baseline/mean_single", seed=seed, members=3)
        sweep.run("output_fusion/average", seed=seed, skill=2.5, fields={"weights": [0.5, 0.5]})
        sweep.run("output_fusion/average", seed=seed, skill=2.0, fields={"weights": "uniform"})
    found = read_sweep(sweep.folder)
    completion = complete(found.records)
    return write_html(comparison(found, completion, 0.95), completion.records, sweep.folder / "report")[0]


@pytest.mark.parametrize("width", [1200, 500])
def test_figures_and_tables_are_shown_and_fit(page: Path, width: int, tmp_path: Path) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    dom = browse(tmp_path, f"--window-size={width},900", "--dump-dom", probed.as_uri())
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert found is not None
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    parsed = Page(page)
    assert len(seen["images"]) == len(parsed.of("img")) == 6
    for natural_width, natural_height, shown_width, shown_height, right in seen["images"]:
        assert natural_width > 500 and natural_height > 200
        assert shown_width > 300 and shown_height > 100 and right <= width
    assert seen["rows"] == 4
    assert len(seen["tables"]) == len(parsed.of("table"))
    assert all(shown_width > 100 and shown_height > 30 for shown_width, shown_height, _ in seen["tables"])
    # wide tables scroll inside of the page; the page does not
    assert seen["page"][0] <= seen["page"][1] == width


def test_a_screenshot_shows_ink(page: Path, tmp_path: Path) -> None:
    browse(tmp_path, "--window-size=1200,3000", f"--screenshot={tmp_path / 'page.png'}", page.as_uri())
    image = Image.open(tmp_path / "page.png").convert("L")
    assert image.size == (1200, 3000)
    for top in range(0, 3000, 500):
        dark = sum(image.crop((0, top, 1200, top + 500)).histogram()[:128])
        assert dark > 500, f"nothing is drawn between {top} and {top + 500}"


def test_it_prints(page: Path, tmp_path: Path) -> None:
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12
    assert len(re.findall(rb"/Subtype\s*/Image\b", content)) >= 6
