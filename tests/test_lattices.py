"""Lattices of images: against fits by scipy, plain sums and constructions with known answers."""

import numpy as np
import pytest
import scipy.linalg
from lattice_images import noisy, reflections, two_crystals, waves
from scipy.optimize import curve_fit

from hrtemvae_hpc.interpretation.angles import directions, lattice_angle, misfit, spacings
from hrtemvae_hpc.interpretation.areas import change_of, find_areas
from hrtemvae_hpc.interpretation.follow import Measured, discover, measure_lattices
from hrtemvae_hpc.interpretation.lattices import find_lattices
from hrtemvae_hpc.interpretation.phase import phase_maps, polar
from hrtemvae_hpc.interpretation.spectra import Moments, Spectrum, find_peaks, noise_around, power_spectrum

SHAPE = (96, 128)


def nearest(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The one of ``found`` [n, 2] that is nearest to ``expected`` [2] or its opposite, with its sign."""
    both = np.vstack([found, -found])
    return np.asarray(both[np.hypot(*(both - expected).T).argmin()])


def fitted(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The reflection [2] ``near`` which scipy fits a Gaussian to the spectrum, with a Hann window and padded."""
    taper = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    size = 1024
    power = abs(np.fft.fft2((image - image.mean()) * taper, (size, size))) ** 2
    reach = round(0.8 * size / min(image.shape))
    rows, columns = (np.arange(round(k * size) - reach, round(k * size) + reach + 1) for k in near)
    cut = power[np.ix_(rows % size, columns % size)]
    y, x = np.meshgrid(rows / size, columns / size, indexing="ij")

    def gaussian(_: object, height: float, ky: float, kx: float, sy: float, sx: float) -> np.ndarray:
        values: np.ndarray = height * np.exp(-((y - ky) ** 2) / (2 * sy**2) - (x - kx) ** 2 / (2 * sx**2))
        return values.ravel()

    start = (cut.max(), *near, 0.5 / image.shape[0], 0.5 / image.shape[1])
    best, _ = curve_fit(gaussian, None, cut.ravel(), start)
    return np.asarray(best[1:3])


@pytest.mark.parametrize(("period", "degrees", "between"), [(7.3, 12.0, 90.0), (11.9, 77.0, 60.0), (5.2, 131.0, 71.0)])
def test_a_static_lattice_agrees_with_a_fit(period: float, degrees: float, between: float) -> None:
    truth = reflections(period, degrees, between)
    image = noisy(waves(SHAPE, truth))
    (found,) = find_lattices(image)
    measured = measure_lattices(image, [found])
    for g in truth:
        ours, theirs = nearest(measured.reflections[0], g), fitted(image, g)
        for other in (theirs, g):
            assert spacings(ours) == pytest.approx(spacings(other), rel=2e-3)
            turned = np.degrees(np.arctan2(*ours)) - np.degrees(np.arctan2(*other))
            assert abs(turned) < 0.1
    assert measured.amplitudes[0] / measured.level == pytest.approx(0.2, rel=0.05)
    assert measured.areas[0] > 0.95 * image.size


def test_no_lattice_in_noise_or_an_amorphous_film() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        white = random.normal(0, 1, (128, 128))
        k = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
        ring = np.fft.ifft2(np.fft.fft2(random.normal(0, 1, (128, 128))) * np.exp(-(((k - 0.12) / 0.03) ** 2))).real
        for image in (white, ring / ring.std() + 0.3 * white):
            assert find_peaks(image.astype(np.float32)) == []


def test_noise_is_that_between_the_reflections() -> None:
    g = reflections(8.0, 20.0)
    image = np.random.default_rng(0).normal(waves((256, 256), g), 3).astype(np.float32)
    assert noise_around(image, [g])[0] == pytest.approx(3, rel=0.25)


def test_power_of_a_weighted_image_is_a_plain_sum() -> None:
    random = np.random.default_rng(0)
    image, weights = random.normal(5, 1, (20, 30)).astype(np.float32), np.zeros((20, 30), np.float32)
    weights[4:17, 6:25] = random.uniform(0, 1, (13, 19))
    ky, kx = np.array([0.1, 0.123]), np.array([0.0, 0.2, 0.31])
    mean = (weights * image).sum() / weights.sum()
    expected = np.zeros((2, 3))
    for i, j in np.ndindex(2, 3):
        total = 0j
        for y, x in np.ndindex(20, 30):
            total += weights[y, x] * (image[y, x] - mean) * np.exp(-2j * np.pi * (ky[i] * y + kx[j] * x))
        expected[i, j] = abs(total) ** 2
    np.testing.assert_allclose(Moments(image, weights).powers(ky, kx), expected, rtol=1e-4)


def test_the_summit_is_the_highest_of_a_fine_grid() -> None:
    g = reflections(7.7, 33.0)[0]
    image = noisy(waves(SHAPE, g[None]))
    moments = Moments(image, np.ones(SHAPE, np.float32))
    at, height = moments.summit(g + np.array([0.003, -0.004]))
    offsets = np.linspace(-4e-3, 4e-3, 161)
    powers = moments.powers(g[0] + offsets, g[1] + offsets)
    i, j = np.unravel_index(powers.argmax(), powers.shape)
    np.testing.assert_allclose(at, [g[0] + offsets[i], g[1] + offsets[j]], atol=5e-5)
    assert height == pytest.approx(2 * np.sqrt(powers.max()) / image.size, rel=1e-3)


def test_the_amplitude_is_known_up_to_the_border() -> None:
    g = reflections(8.0, 30.0)
    image = (5 * waves(SHAPE, g[:1])).astype(np.float32)
    amplitude = abs(Spectrum(image, 10).part(g[0], 10.0))
    np.testing.assert_allclose(amplitude, 5, rtol=0.1)
    np.testing.assert_allclose(amplitude[15:-15, 15:-15], 5, rtol=0.01)


def measured(image: np.ndarray) -> Measured:
    return measure_lattices(image, [track[0] for track in discover(lambda _: image, 1)])


def test_two_crystals_with_their_angle_and_areas() -> None:
    found = measured(noisy(two_crystals()))
    assert len(found.reflections) == 2
    one, other = (g[:, None] for g in found.reflections)
    assert abs(misfit(one, other)) == pytest.approx(20, abs=0.2)
    assert found.areas == pytest.approx([88 * 55, 88 * 55], rel=0.03)
    left = int(found.labels[64, 40])
    assert (found.labels[30:98, 28:68] == left).mean() > 0.98
    assert (found.labels[30:98, 82:122] == 1 - left).mean() > 0.98
    assert (found.labels[:12] == -1).all()


def test_a_weak_crystal_keeps_its_edge_beside_a_strong_one() -> None:
    image = two_crystals(angles=(5.0, 30.0))
    image[:, 75:] *= 0.5
    found = measured(noisy(image, dose=300))
    assert found.areas == pytest.approx([88 * 55, 88 * 55], rel=0.05)


def test_lattices_of_no_strength_are_nowhere() -> None:
    image = noisy(np.zeros(SHAPE))
    g = reflections(9.0, 10.0)
    assert (find_areas(Spectrum(image, 20), [g], noise_around(image, [g])) == -1).all()
    nothing = measure_lattices(image, [g])
    assert nothing.areas == [0]
    np.testing.assert_array_equal(nothing.reflections[0], g)


def test_what_appears_later_is_found_and_what_turns_is_followed() -> None:
    images = []
    for t in range(6):
        image = two_crystals(angles=(5.0, 25.0 + 2 * t))
        if t < 3:
            image[:, 20:75] = 0
        images.append(noisy(image, seed=t))
    late, turning = sorted(discover(lambda t: images[t], 6), key=lambda track: np.ptp(track[:, 0], axis=0).max())
    angle = lattice_angle(turning.swapaxes(0, 1))
    np.testing.assert_allclose(angle - angle[0], 2 * np.arange(6), atol=0.25)
    for t in range(6):
        found = measure_lattices(images[t], [late[t], turning[t]])
        assert (found.areas[0] > 0) == (t >= 3), t


def test_directions_continue_over_180_degrees() -> None:
    angles = np.linspace(150, 230, 30)
    g = np.stack([np.sin(np.radians(angles)), np.cos(np.radians(angles))], -1) / 8
    g[7:9] = np.nan
    found = directions(g)
    assert np.isnan(found[7:9]).all()
    known = np.isfinite(found)
    np.testing.assert_allclose((found - angles)[known], (found - angles)[0], atol=1e-9)
    np.testing.assert_allclose(lattice_angle(g[None])[known], angles[known], atol=1e-9)


@pytest.mark.parametrize("swapped", [False, True])
def test_misfit_is_the_smallest_of_a_square_lattice(swapped: bool) -> None:
    angles = np.linspace(13.7, 9.3, 5)
    one = np.stack([reflections(20.0, 80.0)] * 5, 1)
    other = np.stack([reflections(20.1, 80.0 + angle) for angle in angles], 1)
    if swapped:  # named otherwise, and by the diagonal
        other = np.stack([-other[1], other[0] + other[1]])
    np.testing.assert_allclose(misfit(one, other), angles, atol=1e-6)
    np.testing.assert_allclose(misfit(other, one), -angles, atol=1e-6)
    np.testing.assert_allclose(misfit(one[:1], np.stack([reflections(9.0, 91.0)] * 5, 1)[:1]), 11, atol=1e-6)


def test_polar_decomposition_is_that_of_scipy() -> None:
    deformations = np.eye(2) + np.random.default_rng(0).normal(0, 0.2, (50, 2, 2))
    degrees, stretch = polar(deformations)
    for deformation, angle, u in zip(deformations, degrees, stretch, strict=True):
        rotation, expected = scipy.linalg.polar(deformation)
        np.testing.assert_allclose(u, expected, atol=1e-12)
        assert angle == pytest.approx(np.degrees(np.arctan2(rotation[0, 1], rotation[0, 0])))


STRAINED: dict[str, list[list[float]]] = {  # of positions (row, column)
    "xx": [[1, 0], [0, 1.01]],
    "yy": [[1.01, 0], [0, 1]],
    "xy": [[1, 0.01], [0.01, 1]],
    "rotation": [[np.cos(np.radians(1)), np.sin(np.radians(1))], [-np.sin(np.radians(1)), np.cos(np.radians(1))]],
}


@pytest.mark.parametrize("what", STRAINED)
def test_phase_maps_find_an_imposed_strain(what: str) -> None:
    shape = (160, 240)
    reference = reflections(8.0, 20.0)
    strained = reference @ np.linalg.inv(STRAINED[what])  # G^T of a lattice whose vectors are multiplied by F
    image = waves(shape, reference)
    image[:, 120:] = waves(shape, strained)[:, 120:]
    maps = phase_maps(Spectrum(noisy(image), 8.0), reference, reference, np.ones(shape, bool))
    for name in STRAINED:
        values = getattr(maps, name)
        expected = (1.0 if name == "rotation" else 0.01) if name == what else 0.0
        close = 0.06 if name == "rotation" else 1e-3
        assert np.mean(values[30:-30, 30:100]) == pytest.approx(0, abs=close), name
        assert np.mean(values[30:-30, 140:210]) == pytest.approx(expected, abs=close), name


def test_changes() -> None:
    first, last = np.array([[0, 1, 0, 1]], bool), np.array([[0, 0, 1, 1]], bool)
    assert change_of(first, last).tolist() == [[0, 1, 2, 3]]


def test_the_power_spectrum_has_the_energy_of_the_tapered_image() -> None:
    image = noisy(waves(SHAPE, reflections(8.0, 30.0)))
    taper = np.hanning(SHAPE[0] + 2)[1:-1, None] * np.hanning(SHAPE[1] + 2)[1:-1]
    energy = (((image - image.mean()) * taper) ** 2).sum() * image.size
    assert power_spectrum(image).sum() == pytest.approx(energy, rel=1e-4)
