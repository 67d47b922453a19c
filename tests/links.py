"""Links of a folder of HTML pages: those that lead nowhere, and what a browser would fetch from the network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}


class Page(HTMLParser):
    """Anchors of one page, its links, and the addresses that a browser fetches by itself."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.fetched = {""}, [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        if tag in FETCHED and FETCHED[tag] in known:
            self.fetched.append(known[FETCHED[tag]])


def pages(folder: Path) -> dict[Path, Page]:
    """The pages of a folder; what lies in `_static` are templates of the theme."""
    return {file.resolve(): Page(file) for file in folder.rglob("*.html") if "_static" not in file.parts}


def broken(folder: Path) -> list[str]:
    """Links and pictures whose file is not there, and anchors that no page has."""
    known, wrong = pages(folder), []
    for file, page in known.items():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            missing = not target.is_file()
            if missing or (target in known and unquote(parts.fragment) not in known[target].anchors):
                wrong.append(f"{file.name}: {link}")
    return wrong


def fetched(folder: Path) -> set[str]:
    """Addresses on the network of scripts, styles, fonts and pictures."""
    addresses = {link for page in pages(folder).values() for link in page.fetched}
    return {link for link in addresses if urlsplit(link).scheme in ("http", "https") or link.startswith("//")}
