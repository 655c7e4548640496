"""HTML pages that need nothing else: pictures are embedded."""

import base64
import io
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import replacing, writing
from hrtemvae_hpc.outputs import PAGE_MARK, PICTURE_SOFTWARE, is_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes most of a second to load, which not all pages need

DPI = 110
_COMPRESSION = 4  # on maps a third of the time of zlib's default, 6, for 7% more bytes
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
    html = _templates(template.parent).get_template(template.name).render(mark=PAGE_MARK, **values)
    html = _UNPRINTABLE.sub(lambda match: printable(match[0]), html)
    with writing(page), replacing(page, folder) as aside:
        aside.write_text(html, encoding="utf-8")
    return page


@cache
def _templates(folder: Path) -> Environment:
    """Those of ``folder`` and of the folder of this file; reading them takes longer than drawing a page."""
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def png(figure: "Figure") -> bytes:
    """A figure as a PNG file that says which program made it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": PICTURE_SOFTWARE})
    return buffer.getvalue()


def grey_png(image: np.ndarray) -> bytes:
    """An image [y, x] in 0..1 (black to white) as a PNG file of as many pixels, which says which program made it."""
    return save_png(Image.fromarray(np.rint(255 * image.clip(0, 1)).astype(np.uint8)))


def save_png(image: Image.Image, transparency: int | None = None) -> bytes:
    """An image as a PNG file that says which program made it; pixels of value ``transparency`` show what is behind."""
    buffer, info = io.BytesIO(), PngInfo()
    info.add_text("Software", PICTURE_SOFTWARE)
    image.save(buffer, "png", pnginfo=info, transparency=transparency, compress_level=_COMPRESSION)
    return buffer.getvalue()


def inline(picture: bytes) -> str:
    """A PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
