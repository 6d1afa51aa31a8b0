"""Checks a built site: links lead somewhere, images have a description, and no page asks another host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """Addresses that a page loads, its links, its places that a link can name, and texts of its images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.descriptions: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read one tag."""
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img":
            self.descriptions.append(given.get("alt", given.get("src", "")))
        is_name_only = tag == "link" and given.get("rel") in ("canonical", "next", "prev", "index", "search")
        if LOADS.get(tag) in given and not is_name_only:
            self.loads.append(given[LOADS[tag]])


def complaints(folder: Path) -> Iterator[str]:
    """List what is wrong with a site."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts
    }
    for path, page in pages.items():
        name = path.relative_to(folder)
        yield from (f"{name} loads {each}" for each in page.loads if urlsplit(each).netloc)
        for text in page.descriptions:
            if text.lower().endswith((".png", ".svg")):  # an empty one marks what stands beside its words
                yield f"{name} has an image without a description: {text}"
        for link in (*page.links, *page.loads):
            if urlsplit(link).scheme or urlsplit(link).netloc or link == "#":
                continue
            address, place = urldefrag(link)
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            if not target.exists():
                yield f"{name} links to {link}, which is not there"
            elif place and target in pages and unquote(place) not in pages[target].places:
                yield f"{name} links to {link}: no such place"
    for style in folder.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        if "@import url(http" in text or "url(http" in text or "url(//" in text:
            yield f"{style.relative_to(folder)} loads from another host"


if __name__ == "__main__":
    found = list(complaints(Path(sys.argv[1])))
    sys.exit("\n".join(found) or 0)
