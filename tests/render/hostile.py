"""Names that are markup, programs or TeX, and what of them comes alive in a page."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import xarray as xr
from tests.render.browser import Page

# Every element of the page with the names of its attributes, those within shadow roots too.
_ELEMENTS = """() => {
    const found = []
    const walk = node => {
        if (node.nodeType == Node.ELEMENT_NODE)
            found.push([node.tagName, ...node.getAttributeNames().sort()].join(" "))
        for (const child of [...node.childNodes, ...(node.shadowRoot?.childNodes ?? [])]) walk(child)
    }
    walk(document)
    return found
}"""


def names(trap: str) -> dict[str, str]:
    """Thirteen names; `trap` is an address that nothing may ask for."""
    return {
        "img": "<img src=x onerror=\"window.owned='img'\">",
        "script": "</script><script>window.owned='script'</script>",
        "remote": f"<img src={trap}/leak><link rel=stylesheet href={trap}/css>",
        "svg": "<svg onload=\"window.owned='svg'\"><script>window.owned='svg'</script></svg>",
        "iframe": f'<iframe src="javascript:parent.owned=1"></iframe><iframe src={trap}/frame></iframe>',
        "mathjax": "$$\\href{javascript:window.owned='mathjax'}{x}$$ \\(\\frac{\\) $\\unknown{$",
        "attribute": "\" onmouseover=\"window.owned='attribute'\" x=' onmouseover='window.owned=1",
        "template": "{{7*7}}{% raw %}${window.owned='template'}`+(window.owned=1)+`@{name}{safe}",
        "comment": "--><!--<script>window.owned=1</script>",
        "form": f"<form action={trap}/form><meta http-equiv=refresh content='0;url={trap}/refresh'></form>",
        "style": f"</style><style>@import '{trap}/import'; * {{ background: url({trap}/bg) }}</style>",
        "line": "one\ntwo\r\u2028three\u2029\x00\x07\x1b[31m\u202eevil\u202c\ufeff\ud800",
        "entity": "&lt;img src=x onerror=&quot;window.owned='entity'&quot;&gt;&#60;b&#62;",
    }


@dataclass
class Trap:
    """A server that notes what it is asked for."""

    address: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def trap() -> Iterator[Trap]:
    """Listen on a port of this machine."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Trap(f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    server.server_close()


def called(tree: xr.DataTree, name: str) -> xr.DataTree:
    """Give a name to a tree's one layer, to its samples, and to what the tree says of its origin."""
    leaf = tree["rnn"].to_dataset().assign_attrs(layer=name, missing_spectrum=name)
    leaf = leaf.assign_coords(sample=[f"{name} {place}" for place in range(leaf.sizes["sample"])])
    made = xr.DataTree.from_dict({f"/{name}": leaf})
    made.attrs.update({"framework": name, "batch": name, name: name})
    return made


def elements(page: Page) -> Counter[str]:
    """Count the elements of a page, and of the frames in it."""
    return Counter(found for frame in page.tab.frames for found in frame.evaluate(_ELEMENTS))


def check(page: Page, trap: Trap, ours: Counter[str]) -> None:
    """Nothing has run, nothing was asked for, nothing was refused, and every element is ours."""
    assert [frame.evaluate("() => window.owned ?? null") for frame in page.tab.frames] == [None] * len(
        page.tab.frames
    )
    local = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")
    assert [url for url in page.requests if not url.startswith(local)] == []
    assert trap.asked == []
    assert page.complaints == []
    assert elements(page) == ours
