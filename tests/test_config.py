"""The configuration: its defaults, and what it refuses."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hrtemvae_hpc.analysis.plan import format_bytes
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.config_file import load_config
from hrtemvae_hpc.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


def test_committed_file_holds_every_key_at_its_default() -> None:
    path = CONFIGS / "analyze.yaml"
    assert load_config(path, {}, AnalysisConfig) == AnalysisConfig()
    assert yaml.safe_load(path.read_text()) == AnalysisConfig().model_dump()


def test_demo_configuration_is_valid() -> None:
    assert load_config(CONFIGS / "demo.yaml", {}, AnalysisConfig).preprocess.clip_outliers


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("windows: {step: 4, scaling: frame}\nmovie:\nrun: {max_memory: 1.5 GiB}\n")
    config = load_config(path, {"windows.step": 2, "movie.roi": "1:20,:30"}, AnalysisConfig)
    assert (config.windows.step, config.windows.scaling) == (2, "frame")
    assert config.movie.roi == ((1, 20), (None, 30))
    assert config.run.max_memory == 1.5 * 2**30


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("windows: {stepp: 4}", "`windows.stepp`: no such key"),
        ("windoes: {step: 4}", "`windoes`: no such key"),
        ("windows: {step: '4'}", "`windows.step`: input should be a valid integer, not '4'"),
        ("windows: {step: 0}", "`windows.step`: input should be greater than or equal to 1, not 0"),
        ("windows: {step: 2.5}", "`windows.step`"),
        ("windows: {scaling: all}", "`windows.scaling`: input should be 'window', 'frame' or 'local', not 'all'"),
        ("windows: 8", "`windows`"),
        ("preprocess: {low_pass: 1}", "`preprocess.low_pass`: input should be a valid boolean, not 1"),
        ("encoding: {precision: fp16}", "`encoding.precision`: input should be 'fp32', 'tf32' or 'bf16', not 'fp16'"),
        ("movie: {roi: 5}", "`movie.roi`"),
        ("movie: {roi: '5:7'}", "`movie.roi`: give a region as y0:y1,x0:x1 in pixels"),
        ("movie: {frames: '1:5:0'}", "`movie.frames`: give frames as a:b"),
        ("movie: {frames: [0, 6, 0]}", "`movie.frames`: the step of frames must be at least 1"),
        ("movie: {frames: [-5, 6]}", "`movie.frames`"),
        ("movie: {axes: txx}", "`movie.axes`: name each of the axes"),
        ("run: {max_memory: lots}", "`run.max_memory`: give a size such as 2GB"),
        ("run: {max_memory: -5}", "`run.max_memory`"),
        ("- 1", "made of sections"),
        ("a: [", "not a YAML file"),
    ],
)
def test_mistakes_are_named_with_their_path(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(path, {}, AnalysisConfig)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_a_mistake_on_the_command_line_names_the_option() -> None:
    with pytest.raises(InputError, match="--on-bad-frame: input should be 'stop' or 'skip'"):
        load_config(None, {"movie.on_bad_frame": "jump"}, AnalysisConfig)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\.yaml: the configuration can't be read"):
        load_config(tmp_path / "c.yaml", {}, AnalysisConfig)


@given(st.integers(1, 10**15))
@example(999_500)
def test_sizes_are_read_as_they_are_printed(size: int) -> None:
    read = load_config(None, {"run.max_memory": format_bytes(size)}, AnalysisConfig).run.max_memory
    assert read == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize("text", ["1e+03 kB", "2GB or so", "2 GB 3", "1e9", "-2GB", "GB", ""])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--max-memory: give a size such as 2GB"):
        load_config(None, {"run.max_memory": text}, AnalysisConfig)


@pytest.mark.parametrize(
    ("text", "frames"),
    [("1:4", (1, 4, None)), ("10:59", (10, 59, None)), ("1:4:2", (1, 4, 2)), ("'1:4'", (1, 4, None))],
)
def test_frames_need_no_quotes(tmp_path: Path, text: str, frames: tuple[int, int, int | None]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"movie:\n  frames: {text}\n  roi: 0:10,5:20\n")
    movie = load_config(path, {}, AnalysisConfig).movie
    assert movie.frames == frames
    assert movie.roi == ((0, 10), (5, 20))


def test_numbers_may_have_exponents(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("run: {silent_after: 1e3}\n")
    assert load_config(path, {}, AnalysisConfig).run.silent_after == 1000
