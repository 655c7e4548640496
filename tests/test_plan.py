"""What the plan decides, and what it refuses."""

import dataclasses
import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from commands import Program
from conftest import assert_refused, drifting_pixels
from dm_files import taken_at, write_dm

from hrtemvae_hpc.analysis.estimate import estimate
from hrtemvae_hpc.analysis.plan import Plan, decoded_bytes, make_plan
from hrtemvae_hpc.analysis.plan_text import describe_plan
from hrtemvae_hpc.config import AnalysisConfig, PreprocessSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.ranks.resources import RankResources
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Tiling, WindowGrid

GB = 10**9
Parts = tuple[Engine, TileReader, WindowGrid]


def ranks(count: int, hosts: int = 1, free: int = 8 * GB) -> list[RankResources]:
    return [RankResources(r, f"node{r % hosts}", 100 + r, "CPU", "cpu", 2, GB // 2, free) for r in range(count)]


@pytest.fixture
def parts(tmp_path: Path, tiny_model: Model) -> Iterator[Parts]:
    """Engine, reader and grid of a movie whose frames are chunks, 38 x 48 windows."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("m", data=drifting_pixels(5, 320, 400), chunks=(1, 320, 400), compression="lzf")
    with Movie(tmp_path / "m.h5") as movie:
        engine = Engine(tiny_model, torch.device("cpu"), "fp32", "window", 8)
        yield engine, TileReader(movie, PreprocessSection(), False), WindowGrid(320, 400, 16, 8)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_plan_covers_the_grid_and_keeps_every_rank_busy(parts: Parts, count: int) -> None:
    plan = make_plan(*parts, ranks(count, hosts=2), None)
    covered = np.zeros((plan.tiling.grid.rows, plan.tiling.grid.columns), int)
    for tile in plan.tiling.tiles:
        covered[tile.row0 : tile.row1, tile.column0 : tile.column1] += 1
    assert (covered == 1).all()
    assert len(plan.tiling.tiles) >= count
    assert plan.encodings == covered.size * 5


@pytest.mark.parametrize("preprocess", [PreprocessSection(), PreprocessSection(low_pass=True)])
@pytest.mark.parametrize("blocks", [(2, 3), (5, 1), (40, 40)])
def test_planned_bytes_are_those_that_reading_decodes(
    parts: Parts, preprocess: PreprocessSection, blocks: tuple[int, int]
) -> None:
    _, reader, grid = parts
    reader = TileReader(reader.movie, preprocess, False)
    tiling = Tiling(grid, 4, *blocks)
    read = 0
    for tile in tiling.tiles:
        read += reader.read(grid.area(tile), False).decoded_bytes
    assert decoded_bytes(reader, tiling) == read == len(tiling.tiles) * 5 * 320 * 400 * 2


def test_less_memory_gives_smaller_tiles(parts: Parts) -> None:
    roomy = make_plan(*parts, ranks(1), None)
    need = ranks(1)[0].used + roomy.working_bytes + roomy.tile_bytes
    tight = make_plan(*parts, ranks(1), need - roomy.tile_bytes // 2)
    assert tight.tile_bytes <= roomy.tile_bytes // 2
    assert tight.memory[0] == need - roomy.tile_bytes // 2


def test_too_little_memory_is_refused_with_the_option_that_helps(parts: Parts) -> None:
    with pytest.raises(
        InputError, match=r"rank 0 on node0 \(3 ranks on this node\).*raise --max-memory to (.*) or"
    ) as e:
        make_plan(*parts, ranks(3), GB // 2 + 1000)
    advised = str(e.value).split("raise --max-memory to ")[1].split(" or")[0]
    number, unit = advised.split()
    make_plan(*parts, ranks(3), int(float(number) * {"MB": 1e6, "GB": 1e9}[unit]))


def test_more_than_the_node_has_is_refused(parts: Parts) -> None:
    with pytest.raises(InputError, match=r"node node1: 2 ranks with --max-memory 6 GB each need 12 GB.*has 9 GB free"):
        make_plan(*parts, [*ranks(1, free=100 * GB), *(r for r in ranks(4, 2) if r.host == "node1")], 6 * GB)


def test_a_known_tiling_is_kept_or_refused(parts: Parts) -> None:
    known = Tiling(parts[2], 4, 3, 2)
    assert make_plan(*parts, ranks(5), None, known).tiling == known
    with pytest.raises(InputError, match="--restart"):
        make_plan(*parts, ranks(5), GB // 2 + 1000, known)


def test_the_estimate_follows_the_ranks(parts: Parts) -> None:
    def rated(count: int, hosts: int = 1, slow: float = 1.0) -> list[RankResources]:
        rates: list[dict[str, Any]] = [
            {"encode_rate": 100.0 / (slow if r.rank == 1 else 1), "decode_rate": 1e6} for r in ranks(count, hosts)
        ]
        room: dict[str, Any] = {"stage_memory": GB, "stage_scratch": GB}
        return [dataclasses.replace(r, **room, **rate) for r, rate in zip(ranks(count, hosts), rates, strict=True)]

    plan = make_plan(*parts, rated(4, 2), None)
    assert plan.source == "memory"
    one, two, slowed = (estimate(plan, 5, rated(2, slow=slow)[:count]) for count, slow in ((1, 1), (2, 1), (2, 3)))
    longest = max(tile.windows for tile in plan.tiling.tiles) * plan.frames / 100
    assert one.tiles == pytest.approx(plan.encodings / 100, rel=1e-3)
    assert one.tiles / 2 <= two.tiles <= one.tiles / 2 + longest
    # Three quarters of the work go to the fast rank; the slow one ends at most one of its tiles later.
    assert one.tiles * 0.75 <= slowed.tiles <= one.tiles * 0.75 + 3 * longest
    # Every node decodes the movie, with all its ranks.
    assert estimate(plan, 5, rated(4, 2)).staging == pytest.approx(5 * 320 * 400 * 2 / 2e6)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_frames_are_decoded_once_wherever_there_is_room_to_stage_them(parts: Parts, count: int) -> None:
    def plan(memory: int, scratch: int) -> Plan:
        there = [dataclasses.replace(r, stage_memory=memory, stage_scratch=scratch) for r in ranks(count)]
        return make_plan(*parts, there, None)

    assert plan(GB, GB).read_amplification == plan(0, GB).read_amplification == 1
    assert [plan(GB, GB).source, plan(0, GB).source, plan(0, 0).source] == ["memory", "scratch", "movie"]


@pytest.mark.parametrize("compression", [None, "lzf"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_tiles_decode_no_more_than_every_node_would(
    parts: Parts, tmp_path: Path, compression: str | None, hosts: int
) -> None:
    engine, _, grid = parts
    with h5py.File(tmp_path / "other.h5", "w") as file:
        pixels = np.zeros((5, 320, 400), "u2")
        file.create_dataset("m", data=pixels, chunks=(5, 64, 64) if compression else None, compression=compression)
    with Movie(tmp_path / "other.h5") as movie:
        there = [dataclasses.replace(r, stage_memory=GB) for r in ranks(4, hosts)]
        plan = make_plan(engine, TileReader(movie, PreprocessSection(), False), grid, there, None)
        # The movie's last rows and columns are not in a window, but in a chunk or a line.
        assert plan.read_amplification <= 1.05 * hosts * (320 * 400) / (312 * 392)


def test_the_scaling_benchmark_plans_for_gpus_of_other_machines(tmp_path: Path) -> None:
    benchmark = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/scaling.py"))
    benchmark["write_zeros"](tmp_path / "large.h5", (1000, 4096, 4096), gzip=True)
    estimated = benchmark["expected"](tmp_path / "large.h5", "published", 8, 8, 4, 3e5, 1e9, "cuda")
    assert estimated.staging == pytest.approx(2 * 4096 * 4096 * 1000 / 4e9)  # every node decodes all of it
    assert estimated.tiles == pytest.approx(505**2 * 1000 / (32 * 3e5), rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_bf16_is_advised_where_it_is_faster(parts: Parts, tiny_model: Model, precision: str, bfloat16: bool) -> None:
    slow = [dataclasses.replace(r, encode_rate=1.0, decode_rate=1e6, bfloat16=bfloat16) for r in ranks(2)]
    config = AnalysisConfig.model_validate({"encoding": {"precision": precision}})
    text = describe_plan(parts[1], tiny_model, config, make_plan(*parts, slow, None), slow, None)
    assert ("no rank has a GPU; --precision bf16 is faster" in text) == (bfloat16 and precision == "fp32")
    assert ("rank 0 on node0 has no bfloat16 instructions" in text) == (not bfloat16 and precision == "bf16")


@pytest.mark.parametrize("model", [None, "published"])
@pytest.mark.parametrize("rate", [1.0, 1e6])
def test_a_faster_model_is_named_unless_one_was_chosen(
    parts: Parts, tiny_model: Model, model: str | None, rate: float
) -> None:
    there = [dataclasses.replace(r, encode_rate=rate) for r in ranks(2)]
    config = AnalysisConfig.model_validate({"encoding": {"model": model}})
    text = describe_plan(parts[1], tiny_model, config, make_plan(*parts, there, None), there, None)
    assert ("--model dense encodes about ten times as many windows" in text) == (model is None and rate == 1.0)


def test_a_rank_that_encodes_by_plain_layers_is_named(parts: Parts, tiny_model: Model) -> None:
    some = [dataclasses.replace(r, encode_rate=1.0, without="no compiler" * (r.rank == 1)) for r in ranks(2)]
    text = describe_plan(parts[1], tiny_model, AnalysisConfig(), make_plan(*parts, some, None), some, None)
    assert "rank 1 on node0 encodes by plain PyTorch, which is slower: no compiler." in text


def test_few_frames_are_warned_of(parts: Parts, tiny_model: Model) -> None:
    one = [dataclasses.replace(r, encode_rate=1.0) for r in ranks(1)]
    text = describe_plan(parts[1], tiny_model, AnalysisConfig(), make_plan(*parts, one, None), one, None)
    assert "with 5 frames, large |rho| occur by chance" in text


@pytest.mark.parametrize("hosts", [1, 2])
def test_slow_decoding_is_reported(parts: Parts, tiny_model: Model, hosts: int) -> None:
    room: dict[str, Any] = {"stage_memory": GB, "encode_rate": 1e5, "decode_rate": 1e6}
    slow = [dataclasses.replace(r, **room) for r in ranks(2, hosts)]
    text = describe_plan(parts[1], tiny_model, AnalysisConfig(), make_plan(*parts, slow, None), slow, None)
    assert "decoding the movie takes" in text
    assert ("as every node decodes it all" in text) == ("more ranks on fewer nodes" in text) == (hosts == 2)


@pytest.mark.parametrize("command", ["plan", "analyze"])
def test_notes_on_the_movie_are_shown(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, command: str) -> None:
    (tmp_path / "m").mkdir()
    pixels = drifting_pixels(9, 40, 40)
    pixels[6] = pixels[5]
    for i in (0, 1, 2, 4, 5, 6, 7, 8):
        write_dm(tmp_path / "m" / f"frame_{i}.dm4", pixels[i], tags=taken_at(100 if i == 8 else 200 + i))
    outcome = hrtemvae(command, "m", "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    notes = [line for line in outcome.text.splitlines() if line.startswith("note      ")]
    assert len(notes) == 3, outcome.text
    for words in ("contradict the order of their names", "missing, by the names of the files: 3", ": frame_6.dm4"):
        assert sum(words in note for note in notes) == 1, words


def test_a_plan_for_a_job_on_several_nodes(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    words = ("plan", movie_path, "--model", tiny_model_path, "--step", 2)
    text = hrtemvae(*words, "--nodes", 3).text
    assert "nodes     3 times as many, of the same kind: 3 ranks" in text
    options = f"--step 2 --model {tiny_model_path}"
    assert f"submit    sbatch --nodes=3 slurm/analyze.sh {movie_path} {options}" in text
    one, three = (json.loads(hrtemvae(*words, "--json", "--nodes", n).text) for n in (1, 3))
    assert len(three["ranks"]) == 3 * len(one["ranks"])
    assert len({rank["host"] for rank in three["ranks"]}) == 3
    assert three["stage_bytes"] == one["stage_bytes"]
    together = hrtemvae(*words, "--nodes", 2, ranks=2).text
    assert "4 ranks" in together
    assert "sbatch --nodes=2 --ntasks-per-node=2 slurm/analyze.sh" in together
    assert_refused(hrtemvae(*words, "--nodes", 0), "--nodes 0: give 1 to 10,000")


def test_the_estimate_holds_the_time_that_drift_takes(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    words = ("plan", movie_path, "--model", tiny_model_path, "--json")
    seconds = json.loads(hrtemvae(*words).text)["seconds"]
    assert 0 < seconds["drift"] < 60
    assert seconds["total"] == pytest.approx(sum(seconds[name] for name in ("drift", "staging", "tiles", "result")))
    assert json.loads(hrtemvae(*words, "--drift", "none").text)["seconds"]["drift"] == 0
