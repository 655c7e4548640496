"""What the schemas of configurations and files share, and texts about what they refuse, fit for a terminal."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hrtemvae_hpc.errors import printable

_LONGEST = 160  # characters of a name or value in a message
_VALIDATOR = re.compile(r"[\w-]+\[.*\]")  # how pydantic names its validators


class Described(BaseModel):
    """What a file says about itself, of exactly these types. Unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_on_one_line)]
Name = Annotated[Text, Field(max_length=200)]
Scaling = Literal["window", "frame", "local"]  # of pixels to 0..1, see scaling.py


def _without_repetition(latents: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(latents)) < len(latents):
        raise ValueError("names a latent twice")
    return latents


_Latent = Annotated[int, Field(ge=0, lt=4096)]
_Latents = Annotated[tuple[_Latent, ...], Field(min_length=1, max_length=4096), AfterValidator(_without_repetition)]
Groups = Annotated[dict[Name, _Latents], Field(max_length=16)]  # latents by what they follow, in the model's order


def short(text: object) -> str:
    """``text`` on one line, without what a terminal would act on, cut to a sensible length."""
    shown = printable(" ".join(str(text)[: 2 * _LONGEST].split()))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def place(error: ValidationError) -> str:
    """The dotted path of the first key that a schema refuses, without the names of its own validators."""
    first = error.errors(include_url=False)[0]
    return ".".join(part for part in first["loc"] if isinstance(part, str) and not _VALIDATOR.fullmatch(part))


def reason(error: ValidationError) -> str:
    """Why a schema refuses that key."""
    first: Any = error.errors(include_url=False)[0]
    message = short(first["msg"].removeprefix("Value error, "))
    message = f"{message[0].lower()}{message[1:]}"
    if first["type"] in ("missing", "json_invalid") or isinstance(first["input"], dict | BaseModel):
        return message
    return f"{message}, not {short(repr(first['input']))}"


def mistake(error: Exception) -> str:
    """What is wrong with a file, for a message: of a schema's error its first key and why it is refused."""
    if not isinstance(error, ValidationError):
        return short(error)
    where = place(error)
    return f"`{short(where)}`: {reason(error)}" if where else reason(error)
