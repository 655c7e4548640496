"""The plan and the timings of an analysis, as text and tables."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from hrtemvae_hpc.analysis.coordinator import RankRecord
from hrtemvae_hpc.analysis.drift import Followed
from hrtemvae_hpc.analysis.estimate import estimate
from hrtemvae_hpc.analysis.lattice import describe_lattice
from hrtemvae_hpc.analysis.plan import Plan, format_bytes
from hrtemvae_hpc.analysis.scale import describe_scale
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.errors import printable
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.ranks.progress import format_seconds
from hrtemvae_hpc.ranks.resources import RankResources
from hrtemvae_hpc.statistics.chance import few_frames_warning

_FILES, _FRAMES = 8, 20  # raw files and frames that are listed
_LONG_S = 600.0  # of encoding, from which on something faster is named
_SOURCES = {"movie": "", "memory": "; {} staged in each node's memory", "scratch": "; {} staged on each node's scratch"}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in (head, *rows)]


def describe_plan(
    reader: TileReader,
    model: Model,
    config: AnalysisConfig,
    plan: Plan,
    ranks: Sequence[RankResources],
    followed: Followed | None,
    drift_s: float = 0.0,
    nodes: int = 1,
) -> str:
    """Movie, tiles, memory and time, the table of ranks, notes and advice.

    ``followed`` if drift was measured, else ``drift_s`` about the seconds that this takes. ``ranks`` repeat themselves
    ``nodes`` times, and are shown once.
    """
    movie = reader.movie
    scale, scale_warnings = describe_scale(movie, model, reader.transform.resampler)
    lattice, lattice_warnings = describe_lattice(movie, model, reader.transform.resampler)
    about = movie.source.description
    named = ", ".join(filter(None, (str(movie.path), movie.source.dataset)))
    frames, height, width = movie.shape
    grid = plan.tiling.grid
    calibration = "not calibrated"
    if movie.pixel_size_nm is not None:
        y, x = movie.pixel_size_nm
        calibration = f"{x:.4g} nm/pixel" if abs(y - x) < 1e-6 * x else f"{y:.4g} x {x:.4g} nm/pixel"
    untimed = "frame time unknown" if movie.times_s is None else "frames at uneven times"
    time = f"{movie.frame_time_s:.4g} s/frame" if movie.frame_time_s else untimed
    rows, columns = plan.tiling.largest.shape
    lines = [
        f"movie     {named} ({about.format})",
        f"          {frames} frames of {height} x {width}, {movie.dtype}, {calibration}, {time}",
        f"storage   {movie.storage}",
        *(f"          pixels in {path}" for path in movie.source.raw_files[:_FILES]),
        f"drift     {_describe_drift(config, followed)}",
        f"model     {model.name}, window {grid.window}, {model.architecture.latents} latents, {model.sha256[:12]}",
        f"lattice   {'; '.join(filter(None, (lattice, scale)))}",
        f"windows   {grid.rows} x {grid.columns}, {grid.step} pixels apart: {plan.encodings:,} encodings",
        f"tiles     {plan.tiling.count} of up to {rows} x {columns} windows",
        f"memory    {format_bytes(plan.tile_bytes)} for tiles and {format_bytes(plan.working_bytes)} to work, per rank",
        f"reading   {format_bytes(plan.decoded_bytes)} decoded, read amplification {plan.read_amplification:.2f}"
        + _SOURCES[plan.source].format(format_bytes(plan.stage_bytes)),
    ]
    shared = plan.stage_bytes if plan.source == "memory" else 0
    use = plan.tile_bytes + plan.working_bytes
    shown = ranks[: len(ranks) // nodes]
    on_host = Counter(r.host for r in shown)
    for host, count in on_host.items():
        need = sum(r.used for r in ranks if r.host == host) + count * use + shared
        bound = sum(plan.memory[r.rank] for r in ranks if r.host == host)
        lines.append(f"node      {host}: {count} ranks, {format_bytes(need)} of the {format_bytes(bound)} they may use")
    table = [
        (
            str(r.rank), r.host, str(r.pid), r.device, str(r.threads),
            format_bytes(r.used + use + shared / on_host[r.host]), format_bytes(plan.memory[r.rank]),
            f"{r.encode_rate:,.0f}",
        )
        for r in shown
    ]  # fmt: skip
    lines += _table(("rank", "host", "process", "device", "threads", "needs", "may use", "windows/s"), table)
    if nodes > 1:
        lines.append(f"nodes     {nodes} times as many, of the same kind: {len(ranks)} ranks")
    e = estimate(plan, model.architecture.latents, ranks)
    phases = {"drift": drift_s, "staging": e.staging, "tiles": e.tiles, "result": e.result}
    spent = ", ".join(f"{name} {format_seconds(s)}" for name, s in phases.items() if s > 0.5)
    lines.append(f"estimate  {format_seconds(drift_s + e.total)} from a short trial" + f" ({spent})" * bool(spent))
    drift_warnings = [followed.warning] if followed and followed.warning else []
    lines += [f"note      {note}" for note in about.notes]
    few = few_frames_warning(frames - (int(followed.left_out.sum()) if followed else 0), model.architecture.latents)
    warnings = (*scale_warnings, *lattice_warnings, *drift_warnings, *([few] if few else []))
    lines += [f"warning   {warning}" for warning in warnings]
    lines += [f"advice    {advice}" for advice in _advice(movie, model, config, plan, ranks)]
    return "\n".join(map(printable, lines))


def _describe_drift(config: AnalysisConfig, followed: Followed | None) -> str:
    if followed:
        blank = np.flatnonzero(followed.left_out)
        listed = ", ".join(map(str, blank[:_FRAMES])) + f" and {len(blank) - _FRAMES} more" * (len(blank) > _FRAMES)
        return followed.verdict + (
            f"; {len(blank)} frames show no image and are left out: {listed}" if len(blank) else ""
        )
    if config.drift.correct == "none":
        return "not measured, not corrected (--drift none)"
    return "measured when the movie is analysed, and corrected where two estimates agree"


def _advice(
    movie: Movie, model: Model, config: AnalysisConfig, plan: Plan, ranks: Sequence[RankResources]
) -> list[str]:
    advice = []
    if model.scaling != config.windows.scaling:
        advice.append(
            f"the model was trained on windows scaled by {model.scaling}, not by {config.windows.scaling}: its latents"
            f" may mean little; use --scaling {model.scaling}."
        )
    pitch, step = model.architecture.pitch, min(plan.tiling.grid.step, plan.tiling.grid.window)
    phases = pitch // math.gcd(step, pitch)
    if model.architecture.padding == "valid" and phases > 1 and phases * step > pitch:
        advice.append(
            f"windows {step} pixels apart take the convolutions of a frame {phases**2} times; with a step that is a "
            f"multiple of {pitch}, as --step {max(1, round(step / pitch)) * pitch}, they are shared by all windows."
        )
    encode = plan.encodings / sum(r.encode_rate for r in ranks)
    e = estimate(plan, model.architecture.latents, ranks)
    if e.total > 1.25 * encode and plan.read_amplification > 1.5 and plan.source == "movie":
        chunk = f" The movie is stored in {movie.storage}." if movie.storage.chunk else ""
        advice.append(f"reading is slow because each tile decodes its chunks again.{chunk} "
                      "A larger --max-memory gives fewer, larger tiles; if HRTEMVAE_SCRATCH names a folder with room "
                      "for the movie, it is decoded only once.")  # fmt: skip
    if plan.source != "memory" and (apart := next((r for r in ranks if r.stage_private), None)):
        advice.append(
            f"the ranks on {apart.host} each see their own {' and '.join(apart.stage_private)}, as in separate "
            "containers: the movie can't be staged there; bind the node's into every container."
        )
    if e.staging > 0.25 * e.tiles and movie.storage.compression != "not compressed":
        several = len({r.host for r in ranks}) > 1
        why, better = (", as every node decodes it all", "more ranks on fewer nodes, or ") if several else ("", "")
        advice.append(
            f"decoding the movie takes {e.staging / e.tiles:.0%} of the time that tiles take{why} ({movie.storage}): "
            f"{better}a faster compression would help."
        )
    if e.busy < 0.75 and plan.tiling.count >= len(ranks):
        advice.append(f"ranks are busy for {e.busy:.0%} of the time that tiles take; fewer would be hardly slower.")
    if plan.tiling.count < len(ranks):
        advice.append(
            f"{len(ranks)} ranks share {plan.tiling.count} tiles: the movie is too small for so many; start fewer."
        )
    if slow := next((r for r in ranks if r.without), None):
        advice.append(f"rank {slow.rank} on {slow.host} encodes by plain PyTorch, which is slower: {slow.without}.")
    if config.encoding.model is None and encode > _LONG_S:
        advice.append("--model dense encodes about ten times as many windows per second; docs/model-card.md compares "
                      "what both models find.")  # fmt: skip
    bf16 = config.encoding.precision == "bf16"
    if bf16 and (without := [r for r in ranks if not r.bfloat16]):
        advice.append(
            f"the processor of rank {without[0].rank} on {without[0].host} has no bfloat16 instructions: "
            "--precision fp32 is faster there, and more precise."
        )
    if not bf16 and encode > _LONG_S and all(r.device_type == "cpu" and r.bfloat16 for r in ranks):
        advice.append(
            "no rank has a GPU; --precision bf16 is faster on processors with bfloat16 instructions, but gives less "
            "precise maps."
        )
    return advice


def describe_stages(records: Sequence[RankRecord], seconds: float) -> str:
    """Tiles, windows and seconds by stage of each rank; seconds are summed over a rank's threads."""
    rows = [
        (
            str(r.resources.rank), r.resources.host, str(r.tiles), f"{r.windows:,}",
            *(f"{spent:.1f}" for spent in r.seconds.values()),
            f"{r.windows / seconds:,.0f}",
        )
        for r in records
    ]  # fmt: skip
    head = ("rank", "host", "tiles", "windows", *(f"{stage} s" for stage in records[0].seconds), "windows/s")
    return "\n".join(_table(head, rows))


def describe_phases(began: float, ends: Mapping[str, float]) -> str:
    """The seconds that each phase took, from their ends."""
    starts = [began, *ends.values()]
    spent = (f"{name} {end - start:.1f} s" for (name, end), start in zip(ends.items(), starts, strict=False))
    return ", ".join(spent)
