"""What proves each promise of README.md: `python -m tests.proof` writes docs/proof.md."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
TABLE = PROJECT / "docs" / "proof.toml"
DOCUMENT = PROJECT / "docs" / "proof.md"

# From the weakest to the strongest, and what it means that a promise was shown there.
LAYERS: dict[str, str] = {
    "template": "asserted of the synthesized CloudFormation templates",
    "cli": "run with the real, pinned CDK CLI against the emulated AWS API",
    "emulator": "run against the emulated AWS API, which enforces IAM policies",
    "process": "run with the real server, PostgreSQL, S3 API, TLS and tokens, as processes",
    "container": "run in the image that `server/Dockerfile` builds",
    "browser": "run in Chromium, or by a stock client, through the load balancer's rules",
}
_NOT_PROSE = re.compile(r"^(?:\||#|!\[|<!--).*$", re.MULTILINE)
_BLOCKS = re.compile(r"^```.*?^```\n|<!-- bench:start -->.*?<!-- bench:end -->\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Promise:
    """One promise, in README's words, and the tests that hold it, by layer."""

    says: str
    tests: Mapping[str, tuple[str, ...]]
    only_an_account_shows: str
    shown_by: str

    @property
    def strongest(self) -> str:
        """The strongest layer at which a test holds it."""
        return next(layer for layer in reversed(LAYERS) if layer in self.tests)


def promises() -> list[Promise]:
    """Every promise of docs/proof.toml, in its order."""
    entries = tomllib.loads(TABLE.read_text())["promise"]
    return [
        Promise(
            says=entry["says"],
            tests={layer: tuple(entry[layer]) for layer in LAYERS if layer in entry},
            only_an_account_shows=entry.get("account", ""),
            shown_by=entry.get("shown_by", ""),
        )
        for entry in entries
    ]


def not_promises() -> list[str]:
    """What README says without promising anything."""
    return [str(each) for each in tomllib.loads(TABLE.read_text())["says_no_more"]]


def plain(text: str) -> str:
    """The words of a text: no links, no emphasis, single spaces."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\s+", " ", text.replace("**", "")).strip()


def sentences() -> Iterator[str]:
    """The sentences of README's prose: not its code, tables, headings, pictures and measured figures."""
    prose = _NOT_PROSE.sub("", _BLOCKS.sub("\n", README.read_text()))
    for paragraph in re.split(r"\n\s*\n", prose):
        yield from (each for each in re.split(r"(?<=[.:?]) (?=[A-Z`])", plain(paragraph)) if each)


@cache
def tests_of(path: str) -> frozenset[str]:
    """The names of the tests in a file of tests."""
    tree = ast.parse((PROJECT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def rendered() -> str:
    """docs/proof.md as the table has it."""
    lines = [
        "# What proves what",
        "",
        "Made by `python -m tests.proof` from docs/proof.toml: each promise of README.md, the strongest "
        "thing that ran for it, and what only an AWS account can show. Nothing here has run in one yet.",
        "",
        *(f"- **{layer}**: {meaning}." for layer, meaning in LAYERS.items()),
        "",
        "| README promises | strongest | held by | only an account shows | by the command |",
        "|---|---|---|---|---|",
    ]
    for promise in promises():
        held = "<br>".join(
            f"{layer}: {', '.join(_link(each) for each in promise.tests[layer])}"
            for layer in reversed(LAYERS)
            if layer in promise.tests
        )
        command = f"`{promise.shown_by}`" if promise.shown_by else ""
        cells = (promise.says, promise.strongest, held, promise.only_an_account_shows, command)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _link(test: str) -> str:
    path, name = test.split("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../{path})"


if __name__ == "__main__":
    DOCUMENT.write_text(rendered())
