"""The command `hrtemvae trace`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.errors import InputError, show


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("result", type=Path, help="result file of `hrtemvae analyze`")
    for flag, metavar, text in (
        ("--at", "y,x", "the window at this place, in pixels of the frame or as 1.2nm,3.4nm; may be repeated"),
        ("--box", "y0:y1,x0:x1", "the mean over the windows centred in this box, in pixels; may be repeated"),
        ("--mask", "FILE", "the mean over the windows where this image (npy, tif) is not 0; may be repeated"),
    ):
        command.add_argument(flag, metavar=metavar, action="append", default=[], help=text)
    command.add_argument("--latents", metavar="63,50", help="which latents to write (all)")
    command.add_argument("--show", metavar="0,30", help="frames whose windows are drawn (first, middle and last)")
    command.add_argument("--movie", type=Path, metavar="FILE", help="the movie, if it was moved")
    command.add_argument("--model", type=Path, metavar="FILE", help="the model, if it was moved")
    command.add_argument("-o", "--output", type=Path, help="folder (RESULT.trace beside the result)")


def _run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.interpretation.encode import encodings
    from hrtemvae_hpc.interpretation.places import place_at, place_in_box, place_in_mask
    from hrtemvae_hpc.interpretation.reopen import reopen
    from hrtemvae_hpc.interpretation.trace import trace
    from hrtemvae_hpc.interpretation.trace_page import trace_folder, write_traces
    from hrtemvae_hpc.maps.result import open_result
    from hrtemvae_hpc.ranks.progress import Progress

    folder = options.output or options.result.parent / f"{options.result.stem}.trace"
    latents, frames = _numbers("--latents", options.latents), _numbers("--show", options.show)
    with open_result(options.result) as result:
        places = [place_at(result, point) for point in options.at]
        places += [place_in_box(result, box) for box in options.box]
        places += [place_in_mask(result, Path(mask)) for mask in options.mask]
        if not places:
            raise InputError("name places with --at y,x, --box y0:y1,x0:x1 or --mask FILE.")
        with reopen(result, options.movie, options.model) as again:
            own = trace_folder(folder, [*again.files, *map(Path, options.mask)])
            progress = Progress(encodings(again, places), "window")
            done = 0

            def count(encoded: int) -> None:
                nonlocal done
                done += encoded
                progress.update(done)

            try:
                traces = trace(again, places, latents, frames, count)
            finally:
                progress.close()
            page = write_traces(traces, own)
            for line in filter(None, (traces.agreement, f"trace: {page}")):
                show(line)
    return 0


def _numbers(option: str, text: str | None) -> list[int] | None:
    """The numbers of a list such as 63,50; None if there is none."""
    if text is None:
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() and len(number) < 10 for number in numbers):
        raise InputError(f"{option} {text}: give whole numbers, for example 63,50.")
    return [int(number) for number in numbers]
