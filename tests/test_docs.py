"""What the documentation names exists: links, commands, the version to cite."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hrtemvae_hpc import __version__
from hrtemvae_hpc.cli.main import parser

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def commands() -> list[str]:
    text = "".join((ROOT / page).read_text() for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", [c for c in commands() if "hrtemvae " in c])
def test_commands_of_the_readme_are_valid(command: str) -> None:
    words = shlex.split(command)
    parser().parse_args(words[words.index("hrtemvae") + 1 :])


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_targets_of_the_readme_exist(command: str) -> None:
    assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text()


def test_citation_names_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
