"""The documentation cannot drift: links lead somewhere, and every command and option is written down."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from mce_notebook.frontends import cli, magics

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = {"node_modules", "experiments", "build"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in HIDDEN or part.startswith(".") for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
MANUAL = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """Return the anchors GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+\s+(.*?)\s*#*$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield path, command


def option_names(command: click.Command) -> list[str]:
    names = [name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts]
    return [name for name in names if name.startswith("--") and name != "--help"]


def mentions(option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", MANUAL) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_local_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = unquote(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = page if not target else page.parent / target
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", [path for path, _ in commands(cli.main)], ids=" ".join)
def test_command_is_documented(path: tuple[str, ...]) -> None:
    assert f"mce {' '.join(path)}" in MANUAL


@pytest.mark.parametrize("path", [path for path, _ in commands(cli.main)], ids=" ".join)
def test_command_explains_itself(path: tuple[str, ...]) -> None:
    command = dict(commands(cli.main))[path]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize(
    "option", sorted({name for _, command in commands(cli.main) for name in option_names(command)})
)
def test_command_option_is_documented(option: str) -> None:
    assert mentions(option)


@pytest.mark.parametrize("option", sorted(option_names(magics.sweep_options)))
def test_magic_option_is_documented(option: str) -> None:
    assert mentions(option)


def test_mentions_needs_the_whole_option() -> None:
    assert not mentions("--rer")
    assert not mentions("--no-such-option")
