"""What an installation fetches has a hash in this repository, above all beside an identity."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from local.state import PROJECT
from tests.documents import blocks

_WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
_PACKAGES = ("server", "client_auth", "lifecycle")
_LOCKED = PROJECT / "requirements-build.txt"
# What brings code from elsewhere; a word of a command's own, after its directory.
_FETCHES = {"apt", "apt-get", "brew", "cargo", "curl", "gem", "go", "npm", "npx", "pip", "pip3", "pipx"}
_FETCHES |= {"pnpm", "poetry", "snap", "uv", "uvx", "wget", "yarn"}
# What may stand before a command: words of the shell, of a Dockerfile, and programs that run another.
_BEFORE = {"!", "RUN", "[", "do", "else", "env", "exec", "if", "nice", "sudo", "then", "time", "while"}
_PIP_OPTIONS_WITH_A_VALUE = {"-r", "--requirement", "--only-binary", "--python"}


def commands(script: str) -> Iterator[list[str]]:
    """The commands of a shell script, as words; a line that ends with a backslash goes on."""
    for line in script.replace("\\\n", " ").splitlines():
        # A quotation hides what is substituted in it.
        yield from (inner.split() for inner in re.findall(r"\$\(([^()]+)\)", line))
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation that goes on in the next line
            words = line.split()
        command: list[str] = []
        redirected = False
        for word in words:
            if not re.fullmatch(r"[();<>|&]+", word):
                command += [] if redirected else [word]
                redirected = False
            elif re.fullmatch(r"[<>&]*[<>][&|]?", word):
                redirected = True
            else:
                yield command
                command = []
        yield command


def _tool(command: list[str]) -> tuple[str, list[str]]:
    """What a command runs, without its directory or the Python that runs it, and its arguments."""
    words = itertools.dropwhile(lambda word: word in _BEFORE or "=" in word, command)
    match list(words):
        case [python, "-m", module, *arguments] if "python" in python:
            return module, arguments
        case [program, *arguments]:
            return program.rpartition("/")[2].lstrip("$"), arguments
    return "", []


def fetches_unhashed(command: list[str]) -> bool:
    """Whether this command could bring anything that has no hash in this repository."""
    tool, arguments = _tool(command)
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if tool not in _FETCHES:
        return False
    match tool, first:
        case ("uv", "--version") | ("pip" | "pip3", "uninstall") | ("npm", "ci"):
            return False
        case ("uv", "venv"):
            # Made of the Python that is named, and holds nothing else; without one, uv may fetch a Python.
            return "--python" not in rest
        case ("uv", "pip"):
            return rest[:1] != ["install"] or not _is_hashed(rest[1:])
        case ("pip" | "pip3", "install"):
            return not _is_hashed(rest)
    return True


def _is_hashed(arguments: list[str]) -> bool:
    flags, named = set(), []
    words = iter(arguments)
    for word in words:
        if word in _PIP_OPTIONS_WITH_A_VALUE:
            flags.add(word)
            if "://" in next(words, ""):
                return False
        elif word.startswith("-"):
            flags.add(word)
        else:
            named.append(word)
    if "--require-hashes" in flags:
        return not named and bool(flags & {"-r", "--requirement"})
    ours = {".", *_PACKAGES, *(f"./{name}" for name in _PACKAGES)}
    return bool(named) and set(named) <= ours and flags >= {"--no-deps", "--no-build-isolation"}


def jobs() -> list[Any]:
    return [
        pytest.param(job, id=f"{file.stem}-{name}")
        for file in _WORKFLOWS
        for name, job in yaml.safe_load(file.read_text())["jobs"].items()
    ]


@pytest.mark.parametrize("job", jobs())
def test_no_job_fetches_what_has_no_hash(job: dict[str, Any]) -> None:
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert [each for script in scripts for each in commands(script) if fetches_unhashed(each)] == []


@pytest.mark.parametrize("job", jobs())
def test_every_action_of_every_job_is_pinned_by_its_whole_commit(job: dict[str, Any]) -> None:
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each)] == []


@pytest.mark.parametrize("job", jobs())
def test_a_job_that_holds_an_identity_starts_no_builder_of_somebody_elses(job: dict[str, Any]) -> None:
    if job["permissions"].get("id-token") == "write":
        # It starts the image moby/buildkit:buildx-stable-1, whatever that is today.
        assert not [step for step in job["steps"] if "setup-buildx-action" in step.get("uses", "")]


@pytest.mark.parametrize("file", ["install.sh", "server/Dockerfile"])
def test_neither_installation_nor_image_fetches_what_has_no_hash(file: str) -> None:
    found = [each for each in commands((PROJECT / file).read_text()) if _tool(each)[0] in _FETCHES]
    assert len(found) > 1
    assert [each for each in found if fetches_unhashed(each)] == []


@pytest.mark.parametrize("package", _PACKAGES)
def test_every_package_is_built_with_the_tool_that_is_locked(package: str) -> None:
    project = tomllib.loads((PROJECT / package / "pyproject.toml").read_text())
    (needed,) = project["build-system"]["requires"]
    assert re.fullmatch(r"hatchling==[0-9.]+", needed)
    for locked in (_LOCKED, PROJECT / "server" / "requirements.txt", PROJECT / "requirements-dev.txt"):
        assert f"\n{needed} \\\n    --hash=sha256:" in f"\n{locked.read_text()}", locked.name


def test_the_build_tool_and_all_that_it_needs_have_hashes() -> None:
    pinned = re.findall(r"^[a-z0-9-]+==\S+(?: ;.*)? \\$", _LOCKED.read_text(), flags=re.MULTILINE)
    others = [line for line in _LOCKED.read_text().splitlines() if not line.startswith("    --hash=sha256:")]
    assert others == pinned
    assert len(pinned) > 1


def test_the_documented_installation_beside_an_identity_is_that_of_the_workflow() -> None:
    (block,) = (each for each in blocks("docs/client-auth.md") if each.test == "tests/test_installs.py")
    documented = [line for line in block.commands.splitlines() if line]
    assert not [each for line in documented for each in commands(line) if fetches_unhashed(each)]
    train = yaml.safe_load((PROJECT / ".github/workflows/model.yml").read_text())["jobs"]["train"]
    (install,) = (step["run"] for step in train["steps"] if step.get("name") == "Install")
    assert install.splitlines() == documented


@pytest.mark.parametrize(
    "command",
    [
        "pip install mlflow==3.17.2",
        "python -m pip install --upgrade pip",
        "python -m pip install --no-deps ./client_auth ./lifecycle",
        "pip install --no-build-isolation ./client_auth",
        "pip install --require-hashes -r requirements.txt uv==0.13.9",
        "pip install -r requirements.txt",
        "pip install --require-hashes -r https://example.com/requirements.txt",
        "pip install --no-deps --no-build-isolation git+https://example.com/x",
        "pip download mlflow",
        "pipx run pip-audit==2.10.1",
        "uvx ruff",
        "uv pip install ruff==0.17.6",
        "uv tool install ruff",
        "uv venv work",
        "npm install --global aws-cdk",
        "npx cdk synth",
        "true && curl -fsSL https://example.com/install.sh | sh",
        "apt-get install --yes jq",
        "if ! sudo env A=1 pip install mlflow; then exit 1; fi",
        "bash <(curl https://example.com/install.sh) > log 2>&1",
        'echo "$(uvx ruff)"',
        "a=1; /usr/bin/pip3 \\\n install \\\n mlflow",
    ],
)
def test_the_rule_refuses_what_could_be_another_thing_tomorrow(command: str) -> None:
    assert any(fetches_unhashed(each) for each in commands(command))


@pytest.mark.parametrize(
    "command",
    [
        "python -m pip install --require-hashes -r requirements.txt -r requirements-build.txt",
        "python -m pip install --no-build-isolation --no-deps ./client_auth ./lifecycle",
        "npm ci --silent",
        "echo pipeline && python -m examples.credit_risk.pipeline train",
    ],
)
def test_the_rule_lets_through_what_has_hashes(command: str) -> None:
    assert not any(fetches_unhashed(each) for each in commands(command))
