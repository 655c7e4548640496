"""Results prove that they are as they were written: each flipped bit is found, and a repacked file still verifies."""

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from results import made_up_info, make_up_result

from hrtemvae_hpc.cli.main import parser
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.facility.session import Session
from hrtemvae_hpc.facility.session_report import write_session_page
from hrtemvae_hpc.files import is_written_as
from hrtemvae_hpc.maps.digest import check_whole
from hrtemvae_hpc.maps.report import write_report, write_result_page
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.maps.result_writing import try_result

FLIPS = 200


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_up_result(tmp_path_factory.mktemp("whole") / "maps.h5")


@pytest.fixture
def result(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "maps.h5"))


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def hrtemvae(*arguments: object) -> int:
    """Run a command about results in this process."""
    words = [str(argument) for argument in arguments]
    options = parser(words[:1]).parse_args(words)
    code: int = options.run(options)
    return code


def repack(path: Path, target: Path, **storage: Any) -> Path:
    """What h5repack does: the same content, stored differently."""

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            new.require_group(name)
        else:
            new.create_dataset(name, data=item[()], dtype=item.dtype, **(storage if item.ndim == 3 else {}))
        new[name].attrs.update(item.attrs)

    with h5py.File(path) as old, h5py.File(target, "w") as new:
        new.attrs.update(old.attrs)
        old.visititems(copy)
    return target


def test_a_written_result_is_intact(whole: Path) -> None:
    seen: list[int] = []
    assert "all its bytes" in check_whole(whole, seen.append)
    assert 0 < whole.stat().st_size - sum(seen) < 200, "all of the file but its own digest is read"
    assert is_written_as(whole, "result")
    with open_result(whole) as opened:
        assert opened.extent == pytest.approx(np.array([8.5, 56.5, 38.5, 6.5]) * 0.02)
        assert opened.preview_extent == pytest.approx(np.array([4.5, 60.5, 42.5, 2.5]) * 0.02)


def test_every_flipped_bit_is_found(result: Path) -> None:
    content = result.read_bytes()
    places = random.Random(0)
    special = [content.rindex(b"sha256 of other"), content.rindex(b"bytes in all") + 30, len(content) - 1]
    special += [content.index(b'{".": "') + i for i in (3, 9, 90)] + [0, 9, 40]
    for number in range(FLIPS):
        place = special[number] if number < len(special) else places.randrange(len(content))
        bit = places.randrange(8)
        flip(result, place, bit)
        with pytest.raises(InputError):
            check_whole(result)
        if number % 4 == 0:
            with pytest.raises(InputError):
                write_result_page(result, result.with_suffix(".html"))
            with pytest.raises(InputError):
                write_report(result, result.with_suffix(".report"), tiff=False)
        flip(result, place, bit)
    assert result.read_bytes() == content
    assert os.listdir(result.parent) == ["maps.h5"], "nothing was drawn from a damaged result"
    check_whole(result)


def test_damage_that_makes_hdf5_hang_is_reported(result: Path) -> None:
    content = result.read_bytes()
    for place in (match.start() for match in re.finditer(b"GCOL", content)):
        for offset in range(8, 40):
            flip(result, place + offset, 0)
    with pytest.raises(InputError, match=r"is not intact: .*(damaged|differ)"):
        check_whole(result, name_damage=True)


def test_a_session_lists_damaged_results_as_failed(whole: Path, tmp_path: Path) -> None:
    names = ("whole.h5", "rotten preview.h5", "empty.h5", "late\udcff/odd\n.h5", *(f"{n}.h5" for n in range(10)))
    session = Session(tmp_path, tmp_path / "movies\udcff", (), names)
    content, places = whole.read_bytes(), random.Random(1)
    with h5py.File(whole) as file:
        stored = file["entry/preview/data"].id.get_chunk_info(0)
    for name in names:
        result = Path(shutil.copy(whole, make_room(tmp_path / f"{name}.maps.h5")))
        if "rotten" in name:
            flip(result, stored.byte_offset + stored.size // 2, 3)
        if name[0].isdigit():
            flip(result, places.randrange(len(content)), places.randrange(8))
    (tmp_path / "empty.h5.maps.h5").write_bytes(b"")
    html = write_session_page(session).read_text("utf-8")
    assert html.count("data:image/png") == 2
    assert html.count('<td class="failed">failed</td>') == len(names) - 1
    assert "1 of 14 movies analysed" in html
    assert r"late\udcff/odd\n.h5" in html


def make_room(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


def test_what_differs_is_named(result: Path, tmp_path: Path) -> None:
    def said(change: Callable[[h5py.Group], object]) -> str:
        changed = Path(shutil.copy(result, tmp_path / "changed.h5"))
        with h5py.File(changed, "r+") as file:
            change(file["entry"])
        with pytest.raises(InputError) as refused:
            check_whole(changed, name_damage=True)
        return str(refused.value)

    def change_a_value(entry: h5py.Group) -> None:
        entry["mean/data"][2, 1, 1] += 1

    def remove(entry: h5py.Group) -> None:
        del entry["preview/frame"], entry["variance"]

    assert "/entry/mean/data differ" in said(change_a_value)
    assert "and 7 more are missing" in said(remove)
    assert "/entry/notes were added" in said(lambda entry: entry.create_group("notes"))
    assert "/entry/mean/y differ" in said(lambda entry: entry["mean/y"].attrs.update(units="m"))
    assert "/entry/mean were added" not in said(lambda entry: entry.__setitem__("z", h5py.SoftLink("/entry/mean")))


def test_a_repacked_result_is_intact_and_its_damage_is_found(result: Path, tmp_path: Path) -> None:
    packed = repack(result, tmp_path / "packed.h5", chunks=(1, 2, 3), compression="gzip", shuffle=True)
    assert "repacked" in check_whole(packed)
    write_result_page(packed, tmp_path / "packed.html")
    plain = repack(result, tmp_path / "plain.h5")
    with h5py.File(plain) as file:
        place = file["entry/variance/data"].id.get_offset()
    flip(plain, place + 77, 5)
    with pytest.raises(InputError, match="/entry/variance/data differ"):
        check_whole(plain)


def test_a_result_without_digests_cannot_be_verified(whole: Path, tmp_path: Path) -> None:
    result = repack(whole, tmp_path / "old.h5")
    with h5py.File(result, "r+") as file:
        del file["entry/process/digests"], file["entry/process/file_digest"]
    with pytest.raises(InputError, match="holds no digests"):
        check_whole(result)
    with pytest.raises(InputError, match="holds no digests"), open_result(result):
        pass


def test_verify_checks_all_files(whole: Path, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut\x1b[2J.h5"
    cut.write_bytes(whole.read_bytes()[:-1000])
    flip(result, 30_000, 1)
    assert hrtemvae("verify", cut, result, tmp_path / "none.h5", tmp_path, whole) == 2
    said = capsys.readouterr()
    assert said.out == f"{whole}: intact, all its bytes are as they were written\n"
    lines = said.err.splitlines()
    assert [line.startswith("hrtemvae: ") for line in lines] == [True] * 4
    for line, words in zip(
        lines, ("is truncated", "is not intact", "no such result file", "no such result file"), strict=True
    ):
        assert words in line
    assert "\x1b" not in said.err
    assert hrtemvae("verify", whole) == 0


def test_strings_that_hdf5_cannot_hold_are_escaped(tmp_path: Path) -> None:
    odd = "m\udcff\0\x1b[31m.h5"
    path = make_up_result(
        tmp_path / "maps.h5",
        movie=f"/a/{odd}",
        command_line=odd,
        model=odd,
        model_provenance={odd: [odd]},
        ranks=[{"rank": 0, "host": odd, "device": odd, "threads": 1}],
    )
    check_whole(path)
    html = write_result_page(path, tmp_path / "page.html").read_bytes()
    assert b"\x1b" not in html
    assert b"\0" not in html
    assert rb"m\udcff\x00\x1b[31m.h5" in html


def test_writing_a_result_is_tried_before_it_is_computed(tmp_path: Path) -> None:
    info = made_up_info(height=3000, width=3000, step=1, preview=(np.zeros((2, 3, 3), np.float32), 1000, (0, 5)))
    try_result(tmp_path, info)
    for key, value in {"model_provenance": {"a": b"bytes"}, "bytes_read": 2**70, "seconds": object()}.items():
        with pytest.raises(InputError, match=key.replace("_", " ")):
            try_result(tmp_path, replace(info, process={**info.process, key: value}))
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="none"):
        try_result(tmp_path / "none", info)
