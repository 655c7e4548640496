"""The commands `hrtemvae model ...`."""

import argparse
import dataclasses
from pathlib import Path

from hrtemvae_hpc.cli.options import subcommands
from hrtemvae_hpc.errors import InputError, show
from hrtemvae_hpc.files import replacing, writing
from hrtemvae_hpc.model.bundled import BUNDLED
from hrtemvae_hpc.outputs import Output, beside, check_outputs, is_model, is_numbers, is_page, is_picture


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the commands to their parser."""
    add = subcommands(command)
    keras = add("import-keras", _import_keras, "Read a network saved by Keras (.keras files, SavedModel folders).")
    keras.add_argument("encoder", type=Path)
    keras.add_argument("decoder", type=Path, nargs="?")
    keras.add_argument("-o", "--output", type=Path, required=True, help="model file (.safetensors)")

    evaluate = add("evaluate", _evaluate, "Measure what a model responds to: one HTML page and its numbers.")
    evaluate.add_argument("model", type=Path, nargs="?", help="model file, or a bundled model (published)")
    evaluate.add_argument("-o", "--output", type=Path, help="page (MODEL.html in this folder); numbers go to .json")
    evaluate.add_argument("--segments", type=Path, metavar="FILE", help="reconstruct its validation segments too")
    evaluate.add_argument("--period", type=float, metavar="PIXELS", help="period of the lattice that moves (20.5)")
    evaluate.add_argument("--store", action="store_true", help="keep the groups in the model file")

    traverse = add("traverse", _traverse, "Draw what each latent does to a segment.")
    traverse.add_argument("model", type=Path, nargs="?", help="model file, or a bundled model (published)")
    traverse.add_argument("-o", "--output", type=Path, help="picture (MODEL.traversal.png in this folder)")
    traverse.add_argument("--segments", type=Path, metavar="FILE", help="take a segment from here, not from a lattice")
    traverse.add_argument("--index", type=int, default=0, help="which validation segment (0)")
    traverse.add_argument(
        "--latents", type=int, nargs="+", metavar="Z", help="which latents (the 16 with most variance)"
    )

    compare = add("compare", _compare, "Compare models, or one model on two files of segments.")
    compare.add_argument("models", type=Path, nargs="+", help="model files")
    compare.add_argument(
        "--segments", type=Path, nargs="+", default=[], metavar="FILE", help="one file for all models, or two for one"
    )
    compare.add_argument("-o", "--output", type=Path, default=Path("comparison.html"), help="page (comparison.html)")


def _given(*paths: Path | None) -> list[Path]:
    return [path for path in paths if path is not None]


def _check_page(page: Path, inputs: list[Path]) -> None:
    numbers = Output(beside(page, ".json"), "its numbers", is_numbers)
    check_outputs([Output(page, "the page", is_page), numbers], inputs)


def _import_keras(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.model.keras_import import import_keras
    from hrtemvae_hpc.model.model_file import save_model

    check_outputs([Output(options.output, "the model", is_model)], _given(options.encoder, options.decoder))
    model = import_keras(options.encoder, options.decoder)
    with writing(options.output):
        save_model(model, options.output)
    show(f"{options.output}: {model.architecture.latents} latents, window {model.architecture.window}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.evaluation.evaluate import evaluate
    from hrtemvae_hpc.evaluation.page import write_evaluation
    from hrtemvae_hpc.model.model_file import load_model, model_path, store_groups

    path = model_path(options.model)
    if options.store:
        if path in BUNDLED.values():
            raise InputError("--store: name a model file of your own that is to keep its groups.")
        check_outputs([Output(path, "the model with its groups", is_model)])
    page = options.output or Path(f"{path.stem}.html")
    _check_page(page, _given(path, options.segments))
    if options.period is not None and not 4 <= options.period <= 120:
        raise InputError(f"--period {options.period:g}: choose between 4 and 120 pixels.")
    evaluation = evaluate(load_model(path), options.segments, options.period)
    show(str(write_evaluation(evaluation, page)))
    for response in evaluation.responses:
        latents = " ".join(f"z{i}" for i in response.leading)
        back = "" if response.movement.degrees else f", returns to within {response.return_error:.1%} of the range"
        show(f"{response.movement.name}: {latents} hold {response.explained:.0%} of the variance{back}")
    for one, other, overlap, similarity in evaluation.overlaps:
        show(f"{one} and {other}: overlap {overlap:.2f}, similarity {similarity:.2f}")
    for group in evaluation.groups:
        show(f"group {group.change}: {' '.join(f'z{i}' for i in group.latents)}")
    if options.store:
        with writing(path):
            store_groups(path, {group.change: group.latents for group in evaluation.groups})
    count = evaluation.model.architecture.latents
    show(f"active latents: {'unknown' if evaluation.active is None else evaluation.active} of {count}")
    if evaluation.reconstruction:
        r = evaluation.reconstruction
        show(f"reconstruction: {r.loss:.1f} nats per segment, floor {r.floor:.1f}, average segment {r.average:.1f}")
    return 0


def _traverse(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.evaluation.movements import lattice_period
    from hrtemvae_hpc.evaluation.page import lattice_window
    from hrtemvae_hpc.evaluation.traversal import draw_traversal
    from hrtemvae_hpc.model.model_file import load_model, model_path
    from hrtemvae_hpc.training.batches import segments_for

    path = model_path(options.model)
    model = load_model(path)
    count = model.architecture.latents
    latents = options.latents or list(range(count - 1, max(-1, count - 17), -1))
    if not all(0 <= latent < count for latent in latents):
        raise InputError(f"--latents: the model has z0 to z{count - 1}.")
    if options.segments is None:
        window = lattice_window(model, lattice_period(model))
    else:
        segments = segments_for(model, options.segments)
        if not 0 <= options.index < len(segments.validation):
            raise InputError(f"--index {options.index}: there are {len(segments.validation)} validation segments.")
        window = segments.load(segments.validation[[options.index]])[0, 0].numpy()
    output = options.output or Path(f"{path.stem}.traversal.png")
    check_outputs([Output(output, "the picture", is_picture)], _given(path, options.segments))
    picture = draw_traversal(model, window, latents)
    with writing(output), replacing(output) as aside:
        aside.write_bytes(picture)
    show(str(output))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.evaluation.compare import Basis, compare_models, compare_segments
    from hrtemvae_hpc.evaluation.evaluate import evaluate, reconstruct
    from hrtemvae_hpc.evaluation.page import write_comparison
    from hrtemvae_hpc.model.model_file import load_model
    from hrtemvae_hpc.training.batches import segments_for

    _check_page(options.output, [*options.models, *options.segments])
    models = [load_model(path) for path in options.models]
    basis: Basis | None
    data = [segments_for(models[0], path) for path in options.segments]
    if len(models) == 1 and len(data) == 2:
        first = evaluate(models[0], options.segments[0])
        evaluations = [first, dataclasses.replace(first, reconstruction=reconstruct(models[0], data[1]))]
        names = [path.name for path in options.segments]
        basis = compare_segments(models[0], data[0], data[1])
    elif len(models) > 1 and len(data) < 2:
        evaluations = [evaluate(model, *options.segments or [None]) for model in models]
        names = [path.name for path in options.models]
        basis = compare_models(models[0], models[1], data[0]) if len(models) == 2 and data else None
    else:
        raise InputError("name two models or more (with at most one file of segments), or one model and two files.")
    show(str(write_comparison(evaluations, names, basis, options.output)))
    return 0
