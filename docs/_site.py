"""What Sphinx's extensions do not do by themselves: plots in the gallery, and the options of the command."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import typer.main
from docutils import nodes

import throughtime as tt
from throughtime._cli import app


def scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the plot that a script has made, its variable `picture`."""
    picture = block_vars["example_globals"].pop("picture", None)
    if picture is None:
        return ""
    path = Path(next(block_vars["image_path_iterator"]))
    tt.save(picture, path, theme=tt.Theme(dpi=150))
    place = path.relative_to(gallery_conf["src_dir"]).as_posix()
    return f".. image:: /{place}\n   :alt: {' '.join(picture.title.split())}\n\n"


def describe_images(app: object, document: nodes.document) -> None:
    """Give each plot of an executed cell its title as alternative text, or the title of its section.

    Every image leads to its full size: Sphinx links those that have a scale or a width.
    """
    for image in document.findall(nodes.image):
        if "width" not in image and "/thumb/" not in image["uri"]:
            image["scale"] = 100
    for bundle in document.findall(nodes.container):
        if bundle.get("nb_element") != "mime_bundle":
            continue
        title = re.search(r"<Picture: (.*) · \d+ panel", bundle.astext(), re.DOTALL)
        section = bundle
        while not isinstance(section, nodes.section):
            section = section.parent
        for image in bundle.findall(nodes.image):
            image["alt"] = title[1] if title else f"Plot: {section.next_node(nodes.title).astext()}"


PAGES = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "LIMITATIONS.md": "reference/limitations.md",
}


def moved(file: Path, page: str) -> str:
    """Read a page of the repository's root, with its links as they are from its place in the site."""

    def mended(match: re.Match[str]) -> str:
        text, target = match.groups()
        place = PAGES.get(target) or target.removeprefix("docs/")
        is_in_site = target in PAGES or target.startswith(("docs/", "#"))
        start = str(Path(page).parent)
        address = target if target.startswith("#") else os.path.relpath(place, start)
        return f"[{text}]({address})" if is_in_site else text

    return re.sub(r"\[([^\]]*)\]\((?!http)([^)]+)\)", mended, file.read_text(encoding="utf-8"))


def commands() -> str:
    """Write a page from the parser of the command `throughtime`."""
    group = typer.main.get_command(app)
    parts = ["# The command `throughtime`", str(group.help), "`-h` prints the same in a shell."]
    for name, command in sorted(group.commands.items()):
        parts += [f"## {name}", " ".join(str(command.help).split()), f"```text\n{_usage(name, command)}\n```"]
        parts += [_table(command)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _usage(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    return "throughtime " + " ".join([name, *command.collect_usage_pieces(context)])


def _table(command: Any) -> str:
    rows = [
        f"| `{', '.join(each.opts) if each.param_type_name == 'option' else each.name.upper()}` "
        f"| {' '.join((each.help or '').split())} |"
        for each in command.params
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) if rows else ""
