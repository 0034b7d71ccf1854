"""What the Dockerfile promises. Building it needs Docker and a registry; these tests need neither."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess

from tests.server.conftest import PROJECT, SERVER_PYTHON

SERVER = PROJECT / "server"
DOCKERFILE = (SERVER / "Dockerfile").read_text()


def _instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_base_image_is_an_argument_pinned_by_digest() -> None:
    assert [
        line for line in _instructions("ARG") if re.fullmatch(r"BASE_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}", line)
    ]
    assert {line.split()[0] for line in _instructions("FROM")} == {"${BASE_IMAGE}"}


def test_image_runs_as_an_unprivileged_user() -> None:
    assert _instructions("USER") == ["10001:10001"]


def test_unprivileged_user_can_write_to_the_mounted_tmp() -> None:
    # Fargate mounts an empty volume as root's own unless the image declares the very path.
    assert json.loads(_instructions("VOLUME")[0]) == ["/tmp", "/run/mlflow-aws"]
    assert DOCKERFILE.index("VOLUME") < DOCKERFILE.index("USER")


def test_image_starts_the_server_and_takes_other_commands() -> None:
    assert json.loads(_instructions("ENTRYPOINT")[0]) == ["python", "-m", "mlflow_aws_server"]
    assert json.loads(_instructions("CMD")[0]) == ["serve"]
    assert _instructions("STOPSIGNAL") == ["SIGTERM"]


def test_packages_are_installed_by_hash_and_never_resolved_or_compiled() -> None:
    (install,) = [line for line in _instructions("RUN") if "requirements.txt" in line]
    for option in ("--require-hashes", "--no-deps", "--only-binary :all:"):
        assert option in install


def test_bytecode_is_compiled_in_the_build() -> None:
    assert any("compileall" in line for line in _instructions("RUN"))


def test_image_is_not_bound_to_a_processor() -> None:
    assert not re.search(r"amd64(?! and arm64)|x86_64|aarch64|--platform", DOCKERFILE)


def test_no_secret_enters_the_build() -> None:
    names = [re.split(r"[= ]", line)[0] for line in _instructions("ARG") + _instructions("ENV")]
    assert not [name for name in names if re.search(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY", name)]
    ignored = (SERVER / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*", "only what is named enters the build"


def test_the_build_takes_nothing_from_the_network_but_what_the_lock_pins() -> None:
    assert [line for line in _instructions("RUN") if re.search(r"curl|wget|urllib|https?:|ADD ", line)] == []
    assert _instructions("ADD") == []


def test_everything_the_build_copies_exists() -> None:
    sources = [line.split()[0] for line in _instructions("COPY") if not line.startswith("--from")]
    assert sources
    assert all((SERVER / source.replace("${RDS_CA}", "aws")).exists() for source in sources)


def test_every_package_of_the_lock_has_a_hash() -> None:
    lock = (SERVER / "requirements.txt").read_text().replace("\\\n", " ")
    pinned = [line for line in lock.splitlines() if re.match(r"^[A-Za-z]", line)]
    assert len(pinned) > 50
    assert all("==" in line and "--hash=sha256:" in line for line in pinned)


def test_server_environment_is_the_lock_and_nothing_else() -> None:
    listed = subprocess.run(
        [
            SERVER_PYTHON,
            "-c",
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    installed = {_normal(name): version for name, version in json.loads(listed.stdout).items()}
    lock = (SERVER / "requirements.txt").read_text()
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock, re.MULTILINE):
        locked.setdefault(_normal(name), set()).add(version)
    extra = {name for name in installed if name not in locked} - {"mlflow-aws-server"}
    assert not extra
    other = [
        f"{name}=={installed[name]}"
        for name, versions in sorted(locked.items())
        if name in installed and installed[name] not in versions
    ]
    assert not other, f"Installed in .local/venvs/server, but not locked; run make install: {other}"


def test_server_and_client_are_the_same_mlflow() -> None:
    lock = (SERVER / "requirements.txt").read_text()
    client = importlib.metadata.version("mlflow")
    for name in ("mlflow", "mlflow-skinny", "mlflow-tracing"):
        assert f"\n{name}=={client} " in f"\n{lock}", (
            f"server/requirements.txt does not lock {name}=={client}, the client's version: run make lock"
        )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
