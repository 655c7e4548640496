"""HTML pages that need nothing else: pictures are embedded."""

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import replacing, writing
from hrtemvae_hpc.outputs import PAGE_MARK, PICTURE_SOFTWARE, is_page

DPI = 110
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def write_page(template: Path, page: Path, folder: Path | None = None, **values: object) -> Path:
    """Draw ``template`` with ``values`` as ``page``, which is returned; it is written in ``folder`` first, or beside.

    What can't be shown of names, control characters for example, is escaped. Raises InputError if ``page`` can't be
    written, or is a file that this program did not write as a page.
    """
    if os.path.lexists(page) and not is_page(page):
        raise InputError(
            f"{page}: exists, and a page may only replace one that this program wrote; move it away, or choose another "
            "output with -o."
        )
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    html = environment.get_template(template.name).render(mark=PAGE_MARK, **values)
    html = _UNPRINTABLE.sub(lambda match: printable(match[0]), html)
    with writing(page), replacing(page, folder) as aside:
        aside.write_text(html, encoding="utf-8")
    return page


def png(figure: Figure) -> bytes:
    """A figure as a PNG file that says which program made it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": PICTURE_SOFTWARE})
    return buffer.getvalue()


def grey_png(image: np.ndarray) -> bytes:
    """An image [y, x] in 0..1 (black to white) as a PNG file of as many pixels, which says which program made it."""
    buffer = io.BytesIO()
    imsave(buffer, image, cmap="gray", vmin=0, vmax=1, format="png", metadata={"Software": PICTURE_SOFTWARE})
    return buffer.getvalue()


def inline(picture: bytes) -> str:
    """A PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
