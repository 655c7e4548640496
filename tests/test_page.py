"""The page of a result in a real browser: what it says of a place is what the result holds there."""

import base64
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import pytest
from browser import Browser, started
from conftest import read_maps
from PIL import Image
from results import LATENTS, made_up_info, series_of, tiles_of
from selenium.webdriver.common.keys import Keys

from hrtemvae_hpc.maps.drift_group import FrameCurves
from hrtemvae_hpc.maps.report import write_result_page
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.maps.result_writing import write_result

HEIGHT, WIDTH, STEP, WINDOW = 88, 120, 8, 16
ROWS, COLUMNS = 10, 14
PROCESSES = 1
PIXEL = 0.02
GROUPS = {"rotation": [0, 2], "growth and loss at an edge": [1]}
POWER = {"time_correlated_variance": 4, "variance": 2, "spearman": 1, "mean": 1, "valid_frames": 1, "group": 2,
         "excess_variance": 1, "change": 1, "significance": 2}  # fmt: skip
STORED = {"excess_variance": "excess_variance/data", "change": "change/frame", "significance": "significance/data"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("it's a page")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with started(folder) as running:
        yield running


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """Of maps of noise around a spot, and of frames of which the last one is the first upside down."""
    random = np.random.default_rng(0)
    image = random.random((HEIGHT, WIDTH), np.float32)
    curves = FrameCurves(
        frame=np.arange(6),
        dy=np.linspace(0, 3, 6),
        dx=np.linspace(0, -2, 6),
        quality=np.ones(6),
        applied_dy=np.array([0, 1, 1, 2, 2, 3]),
        applied_dx=np.array([0, 0, -1, -1, -2, -2]),
        blank=np.array([False, False, True, False, False, False]),
        mean=random.random(6),
        contrast=random.random(6),
        focus=random.random(6),
        verdict="up to 3 pixels",
        warning="",
    )
    info = made_up_info(
        HEIGHT, WIDTH, WINDOW, STEP, (PIXEL, PIXEL), (np.stack([image, image[::-1]]), 1, (0, 5)), model_groups=GROUPS
    )
    ((tile, done),) = tiles_of(info.grid)
    done.maps *= random.uniform(0.5, 1, done.maps.shape).astype(np.float32)
    write_result(folder / "my maps.h5", folder, replace(info, curves=curves), [(tile, done)])
    return write_result_page(folder / "my maps.h5", folder / "my maps.html")


@pytest.fixture(scope="module")
def maps(page: Path) -> dict[str, np.ndarray]:
    return read_maps(page.with_suffix(".h5"))


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    browser.show(page)
    return browser


def share(row: float, column: float) -> tuple[float, float]:
    """x and y of a window's centre, as shares of the frame; halves lie between windows."""
    x, y = ((n * STEP + WINDOW / 2) for n in (column, row))
    return x / WIDTH, y / HEIGHT


def assert_says(text: str, values: np.ndarray, quantity: str, row: int, column: int) -> None:
    """``text`` is the value of a window, to half a step of its small integer and three digits."""
    value = values[row, column]
    if np.isnan(value):
        assert text == "none"
        return
    finite = values[np.isfinite(values)]
    low, high = (-1, 1) if quantity == "spearman" else (min(0, finite.min()), finite.max())
    if quantity in ("mean", "excess_variance", "change"):
        low = finite.min()
    root = ((value - low) / ((high - low) or 1)) ** (1 / POWER[quantity])
    bounds = [low + (high - low) * max(root + d / 254, 0) ** POWER[quantity] for d in (-0.51, 0.51)]
    assert bounds[0] - 0.006 * abs(value) <= float(text) <= bounds[1] + 0.006 * abs(value)


def test_a_page_draws_itself_without_a_complaint_and_without_a_network(shown: Browser) -> None:
    assert shown.log() == []
    loaded = shown.evaluate("performance.getEntriesByType('resource').map((r) => r.name.slice(0, 5))")
    assert set(loaded) <= {"data:"}
    assert shown.find("#viewer").is_displayed()
    assert len(shown.driver.find_elements("css selector", ".curves canvas")) == 4
    assert len(shown.driver.find_elements("css selector", ".figures canvas.map")) == 2 + 2 * LATENTS


@pytest.mark.parametrize("quantity", [name for name in POWER if name != "group"])
def test_the_cursor_tells_the_value_and_the_place(
    shown: Browser, maps: dict[str, np.ndarray], page: Path, quantity: str
) -> None:
    shown.choose("#quantity", quantity)
    values = maps[STORED.get(quantity, quantity)]
    if quantity != "valid_frames":
        shown.choose("#latent", "1")
        values = values[1]
    with h5py.File(page.with_suffix(".h5")) as file:
        y, x = (file[f"entry/mean/{axis}"][...] for axis in "yx")
    places = ((0, 0, 0.4), (3, 7, -0.4), (6, 2, 0.4), (ROWS - 1, COLUMNS - 1, -0.4))
    for row, column, aside in places:  # not only the middle of a window belongs to it
        shown.move(shown.find("#stage"), *share(row + aside, column - aside))
        said = re.fullmatch(r"(\S+) at y (\S+), x (\S+) nm \(row (\d+), column (\d+)\)", shown.text("#readout"))
        assert said, shown.text("#readout")
        assert (int(said[4]), int(said[5])) == (row, column)
        assert float(said[2]) == pytest.approx(y[row], rel=1e-4)
        assert float(said[3]) == pytest.approx(x[column], rel=1e-4)
        assert_says(said[1], values, quantity, row, column)


def test_the_cursor_is_linked_to_all_figures(shown: Browser, maps: dict[str, np.ndarray]) -> None:
    shown.move(shown.find("#stage"), *share(3, 7))
    captions = [f.text for f in shown.driver.find_elements("css selector", ".figures figcaption")]
    value = next(re.search(r"z2: Spearman's ρ\s*(\S+)", c) for c in captions if "z2: Spearman" in c)
    assert value
    assert_says(value[1], maps["spearman"][2], "spearman", 3, 7)
    crosses = shown.evaluate("[...document.querySelectorAll('.cross:not([hidden])')]")
    assert len(crosses) == 1 + PROCESSES + 4 + 2 * LATENTS


def test_a_click_on_a_process_shows_its_first_latent(shown: Browser, page: Path) -> None:
    with open_result(page.with_suffix(".h5")) as result:
        assert result.processes is not None
        assert len(result.processes.found) == PROCESSES
        first = int(np.argmax(result.processes.found.weights[0]))
    shown.find("img.part").click()
    assert shown.text("#title") == f"z{first}: (ρ · variance)²"


def test_a_click_pins_a_window_and_makes_the_command(
    shown: Browser, maps: dict[str, np.ndarray], page: Path, folder: Path
) -> None:
    shown.choose("#latent", "0")
    for row, column in ((3, 7), (5, 1)):
        shown.move(shown.find("#stage"), *share(row, column)).click().perform()
    rows = [r.text.split() for r in shown.driver.find_elements("css selector", "#pins tbody tr")]
    assert [r[0] for r in rows] == ["1", "2"]
    assert_says(rows[1][3], maps["time_correlated_variance"][0], "time_correlated_variance", 5, 1)
    with h5py.File(page.with_suffix(".h5")) as file:
        y, x = (file[f"entry/mean/{axis}_pixel"][...] for axis in "yx")
    words = shlex.split(shown.text("#trace"))
    assert words[:3] == ["hrtemvae", "trace", str(folder / "my maps.h5")]
    assert words[3:] == ["--at", f"{y[3]},{x[7]}", "--at", f"{y[5]},{x[1]}"]
    shown.tell("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    shown.find("[data-copies=trace]").click()
    shown.until(lambda: shown.text("[data-copies=trace]") == "Copied")
    shown.press(Keys.ESCAPE)
    assert not shown.find("#pins").is_displayed()


def test_a_click_shows_the_latents_of_that_place_over_time(shown: Browser) -> None:
    def legend(row: int) -> float:
        return float(shown.text(f"#series .u-series:nth-child({row}) .u-value"))

    shown.choose("#quantity", "mean")
    shown.choose("#latent", "2")
    assert not shown.find("#series").is_displayed()
    places = (3, 7), (5, 1)
    for row, column in places:
        shown.move(shown.find("#stage"), *share(row, column)).click().perform()
    shown.move(shown.find("#stage"), *share(6.5, 9.5)).click_and_hold().perform()
    shown.move(shown.find("#stage"), *share(8.5, 11.5)).release().perform()
    selected = series_of(np.array([7.0, 7, 8, 8]), np.array([10.0, 11, 10, 11])).mean(0)
    expected = [series_of(np.array(row), np.array(column)) for row, column in places]
    for frame in (1, 4):
        shown.move(shown.find("#series .u-over"), frame / 5, 0.5)
        assert legend(1) == frame / 2  # seconds
        step = 3 * 36 * 5 / 254
        for i, series in enumerate([*expected, selected]):
            assert legend(2 + i) == pytest.approx(series[2, frame], abs=step)
    shown.find("#save-series").click()
    head, *lines = shown.downloaded("my maps-series-z2.csv").decode().splitlines()
    assert re.fullmatch(r"time / s,y [\d.]+ x [\d.]+ nm,y [\d.]+ x [\d.]+ nm,mean of \d selected", head)
    table = np.array([line.split(",") for line in lines], float)
    np.testing.assert_allclose(table[:, 0], np.arange(6) / 2)
    np.testing.assert_allclose(table[:, 1:], np.stack([each[2] for each in (*expected, selected)], 1), atol=step)
    shown.choose("#latent", "0")
    shown.move(shown.find("#series .u-over"), 1, 0.5)
    assert legend(2) == pytest.approx(expected[0][0, 5], abs=step)
    shown.find("#clear").click()
    assert not shown.find("#series").is_displayed()
    assert not shown.find("#windows").is_displayed()
    assert shown.log() == []


def test_a_click_shows_the_windows_of_that_place(shown: Browser, page: Path) -> None:
    with open_result(page.with_suffix(".h5")) as result:
        assert result.windows is not None
        side, places, across = result.windows.side, result.windows.places, result.windows.cells[1]
        centres = result.y, result.x
    shown.move(shown.find("#stage"), *share(5, 8)).click().perform()
    cell = 5 // side, 8 // side
    number = cell[0] * across + cell[1]
    y, x = (axis[n] for axis, n in zip(centres, places[:, number], strict=True))
    said = re.fullmatch(r"Place 1: window at y (\S+), x (\S+) nm", shown.text("#windows .note"))
    assert said
    assert [float(said[1]), float(said[2])] == pytest.approx([y, x], rel=1e-4)
    captions = shown.driver.find_elements("css selector", "#windows figcaption")
    assert [c.text for c in captions] == [f"frame {t}: correlation 0.90" for t in (0, 2, 5)]
    drawn = shown.evaluate("[...document.querySelectorAll('#windows canvas')].map((each) => each.toDataURL())")
    for time, url in enumerate(drawn):
        pair = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("L"))
        assert [pair[20, 20], pair[20, -20]] == [6 * number + 2 * time, 6 * number + 2 * time + 1]


@pytest.mark.parametrize("drag", ["box", "lasso"])
def test_a_drag_tells_the_mean_of_the_windows_within(shown: Browser, maps: dict[str, np.ndarray], drag: str) -> None:
    """A box, and a triangle of as many windows as lie on one side of a diagonal."""
    shown.choose("#drag", drag)
    shown.choose("#quantity", "mean")
    shown.choose("#latent", "1")
    corners = [(1.5, 2.5), (1.5, 8.5), (7.5, 8.5)] if drag == "lasso" else [(1.5, 2.5), (7.5, 8.5)]
    stage = shown.find("#stage")
    shown.move(stage, *share(*corners[0])).click_and_hold().perform()
    for corner in corners[1:]:
        shown.move(stage, *share(*corner))
    shown.move(stage, *share(*corners[-1])).release().perform()
    row, column = np.mgrid[:ROWS, :COLUMNS]
    inside = (row > 1.5) & (row < 7.5) & (column > 2.5) & (column < 8.5)
    if drag == "lasso":
        inside &= column - row > 1
    said = re.match(r"(\d+) windows selected: mean (\S+), from (\S+) to (\S+)", shown.text("#selection"))
    assert said
    values = maps["mean"][1][inside]
    step = float(np.nanmax(maps["mean"][1]) - np.nanmin(maps["mean"][1])) / 254
    # On the diagonal, the pixel that the pointer is rounded to decides.
    assert abs(int(said[1]) - inside.sum()) <= (6 if drag == "lasso" else 0)
    if drag == "box":
        for text, expected in zip(said.groups()[1:], (values.mean(), values.min(), values.max()), strict=True):
            assert float(text) == pytest.approx(expected, rel=6e-3, abs=step)
    box = shlex.split(shown.text("#lattice"))[-1]
    top, bottom, left, right = map(int, re.split("[:,]", box))
    # From the made-up region's first pixel, 3, 5, on.
    for edge, place in ((top, 3 + 20), (bottom, 3 + 68), (left, 5 + 28), (right, 5 + 76)):
        assert abs(edge - place) <= 1


def test_the_keyboard_does_what_the_buttons_do(shown: Browser) -> None:
    assert shown.text("#title") == "all latents together"
    shown.press("]")
    shown.until(lambda: shown.text("#title").startswith("z"))
    first = shown.text("#title")
    shown.press("q")
    shown.until(lambda: shown.text("#title") == first.split(":")[0] + ": variance")
    shown.press("s")
    assert shown.find("#scale").get_attribute("value") == "root"
    shown.press(".", "c", "r")
    assert shown.text("#frame-label") == "last frame (5)"
    assert shown.find("#contour").is_selected()
    assert shown.find("#shared").get_attribute("value") == "1"
    shown.evaluate("document.querySelector('#stage').focus({preventScroll: true})")
    shown.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert f"(row {ROWS // 2 + 1}, column {COLUMNS // 2 + 1})" in shown.text("#readout")
    shown.press(Keys.ENTER)
    assert len(shown.driver.find_elements("css selector", "#pins tbody tr")) == 1
    assert shown.log() == []


def test_the_slider_shows_another_frame(shown: Browser, page: Path) -> None:
    stored = re.findall(r'class="frame".*?base64,([^"]+)"', page.read_text())
    frames = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s)))) for s in stored]
    shown.evaluate("(document.querySelector('#opacity').value = 0, 0)")
    shown.evaluate("document.querySelector('#opacity').dispatchEvent(new Event('input'))")
    for number in (0, 1):
        shown.find("#stage").click()
        url = shown.evaluate("document.querySelector('#picture').toDataURL()")
        drawn = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("L").resize((WIDTH, HEIGHT))
        alike = [np.corrcoef(np.asarray(drawn).ravel(), f.ravel())[0, 1] for f in frames]
        assert int(np.argmax(alike)) == number
        assert max(alike) > 0.9
        shown.press(".")


def test_what_is_shown_can_be_saved(shown: Browser, maps: dict[str, np.ndarray]) -> None:
    shown.choose("#latent", "2")
    shown.find("#save-table").click()
    text = shown.downloaded("my maps-time_correlated_variance-z2.csv").decode()
    head, *lines = text.splitlines()
    assert head == "y_nm,x_nm,time_correlated_variance"
    assert len(lines) == ROWS * COLUMNS
    assert lines[-1].endswith(","), "the last window has no map"
    values = maps["time_correlated_variance"][2]
    for number in (0, 45, 77):
        assert_says(lines[number].split(",")[2], values, "time_correlated_variance", *divmod(number, COLUMNS))
    shown.find("#save-picture").click()
    saved = Image.open(io.BytesIO(shown.downloaded("my maps-time_correlated_variance-z2.png")))
    assert saved.width > 500
    assert np.asarray(saved.convert("L")).std() > 20


def test_the_map_of_a_group_is_shown(shown: Browser, maps: dict[str, np.ndarray]) -> None:
    shown.choose("#quantity", "group")
    assert shown.text("#title").startswith("rotation: ")
    shown.choose("#latent", "growth and loss at an edge")
    shown.find("#save-table").click()
    lines = shown.downloaded("my maps-group-growth and loss at an edge.csv").decode().splitlines()
    values = np.sqrt(maps["time_correlated_variance"][1])
    for number in (0, 45, 77):
        assert_says(lines[1 + number].split(",")[2], values, "group", *divmod(number, COLUMNS))


def test_dark_follows_the_system_and_the_switch(browser: Browser, page: Path) -> None:
    def paper() -> int:
        colour = str(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        return int(re.findall(r"\d+", colour)[0])

    browser.show(page, dark=True)
    assert paper() < 60
    browser.find("#theme").click()
    assert paper() > 200
    browser.press("d")
    assert paper() < 60
    browser.show(page)
    assert paper() > 200


def test_a_narrow_page_does_not_scroll_sideways(browser: Browser, page: Path) -> None:
    browser.show(page, width=380)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 380


def test_a_page_with_nothing_to_show(browser: Browser, tmp_path: Path) -> None:
    info = made_up_info()
    ((tile, done),) = tiles_of(info.grid)
    done.maps[...] = np.nan
    write_result(tmp_path / "maps.h5", tmp_path, info, [(tile, done)])
    browser.show(write_result_page(tmp_path / "maps.h5", tmp_path / "maps.html"))
    assert browser.log() == []
    browser.find("#theme").click()
    assert browser.text("#theme") == "Light"


def test_without_scripts_the_leading_maps_are_drawn(browser: Browser, page: Path, maps: dict[str, np.ndarray]) -> None:
    browser.show(page, scripts=False)
    assert not browser.find("#viewer").is_displayed()
    panel = browser.find('.panel:has(img[data-map="z1: Spearman\'s ρ"])')
    clip = {**{name: round(length) for name, length in panel.rect.items()}, "scale": 1}
    taken = browser.tell("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(taken))).convert("RGB")).astype(float)
    expected = 255 * mpl.colormaps["RdBu_r"]((maps["spearman"][1] + 1) / 2)[..., :3]
    for row, column in ((0, 0), (3, 7), (6, 12)):
        x, y = share(row, column)
        assert np.abs(drawn[int(y * len(drawn)), int(x * len(drawn[0]))] - expected[row, column]).max() < 12
    for words in ("Ranking", "/nowhere/movie.h5", "0.02 nm per pixel", "need JavaScript"):
        assert words in browser.text("body")
