"""A drawn figure as PNG, with the words that replace it. The only place of the report that makes matplotlib figures."""

from __future__ import annotations

import base64
import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.8  # inches: on a phone the letters stay readable
DPI = 160
SMALL, USUAL = 8.0, 9.0  # points
INK, GRAY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE = "#0b5fa5", "#b45309"  # told apart by most color-blind readers, and always by a marker too


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure of the report.

    Attributes:
        name: of the file, without suffix.
        caption: how to read it.
        alt: what it shows, for those who cannot see it.
        png: the image.
    """

    name: str
    caption: str
    alt: str
    png: bytes

    @property
    def source(self) -> str:
        """The image as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in CSS pixels, 96 an inch."""
        # a PNG begins with 8 bytes of signature and 8 of its first chunk's length and name; then its width and height
        width, height = struct.unpack(">II", self.png[16:24])
        return round(width * 96 / DPI), round(height * 96 / DPI)


def canvas(height: float) -> Figure:
    """An empty figure `WIDTH` inches wide, drawn by Agg without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes with margins in inches, a light frame and small letters."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    axes.tick_params(labelsize=SMALL, colors=INK, length=3, color=GRAY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    return axes


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes each time; `$` in a name is a character like others, no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
