"""HTML pages that need nothing else: pictures stand inside them."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import replacing

DPI = 110


def write_page(template: Path, page: Path, **values: object) -> Path:
    """Draw ``template`` with ``values`` as ``page``, which is returned.

    Raises InputError where ``page`` can't be written.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    html = environment.get_template(template.name).render(**values)
    try:
        with replacing(page) as aside:
            aside.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page}: can't be written ({error.strerror}); choose another place with -o.") from error
    return page


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def inline(picture: bytes) -> str:
    """A PNG file as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
