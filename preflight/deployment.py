"""Who deploys, what was deployed before, and where the image is built."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

from findings.reader import AbsentError
from preflight.subject import Answer, Probe, Subject, bad, good, warning

# What the stacks' assets need of the bootstrap stack; a test compares it with what the CDK demands.
BOOTSTRAP_VERSION = 6
_BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"
_SECONDS = 20
_MACHINES = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "x86_64", "AMD64": "x86_64"}
_EMULATORS = {"arm64": "qemu-aarch64", "x86_64": "qemu-x86_64"}


def _caller(subject: Subject) -> Answer:
    deployer = subject.deployer
    told = f"{deployer.arn}, account {deployer.account}, region {deployer.region}"
    if deployer.arn.endswith(":root"):
        return warning(told, "deploy with a role, not with the account's root user")
    return good(told)


def _region(subject: Subject) -> Answer:
    region = subject.deployer.region
    found = subject.ask("ec2", "describe_regions", AllRegions=True)["Regions"]
    status = {each["RegionName"]: each.get("OptInStatus") for each in found}.get(region)
    if status is None:
        return bad(f"no region {region}", "correct `region` in the configuration")
    if status == "not-opted-in":
        return bad(f"{region} is off in this account", f"aws account enable-region --region-name {region}")
    return good(region)


def _bootstrap(subject: Subject) -> Answer:
    remedy = f"make bootstrap ENV={subject.name}"
    try:
        value = subject.ask("ssm", "get_parameter", Name=_BOOTSTRAP)["Parameter"]["Value"]
    except AbsentError:
        return bad("not bootstrapped for the CDK", remedy)
    if int(value) < BOOTSTRAP_VERSION:
        return bad(f"version {value}, and {BOOTSTRAP_VERSION} is needed", remedy)
    return good(f"version {value}")


def _stacks(subject: Subject) -> Answer:
    found = {
        name: status
        for name in (subject.foundation, subject.service)
        if (status := subject.stack_status(name)) is not None
    }
    told = ", ".join(f"{name}: {status}" for name, status in found.items()) or "none: a first deployment"
    statuses = set(found.values())
    if any(each.endswith("_IN_PROGRESS") and each != "REVIEW_IN_PROGRESS" for each in statuses):
        return bad(told, "another deployment is running: wait for its end")
    if statuses & {"UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"}:
        return bad(told, "look at the stack's events in CloudFormation, and continue or delete it there")
    if statuses & {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}:
        return warning(
            told, "the first deployment failed; `make deploy` deletes what is left and begins again"
        )
    return good(told)


def _image(subject: Subject) -> Answer:
    server = subject.environment.server
    if server.image_uri is not None:
        return good(f"runs {server.image_uri}; nothing is built")
    if server.build == "codebuild":
        return good("built by CodeBuild in the account; no Docker is needed")
    remedy = 'start Docker, or set server.build = "codebuild"'
    if shutil.which("docker") is None:
        return bad("there is no Docker on this machine", remedy)
    done = subprocess.run(
        ["docker", "info", "--format", "{{.Architecture}}"],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        return bad(f"Docker does not answer: {done.stderr.strip()[:200]}", remedy)
    return _processor(done.stdout.strip() or platform.machine(), server.architecture)


def _processor(machine: str, wanted: str, emulators: Path = Path("/proc/sys/fs/binfmt_misc")) -> Answer:
    has = _MACHINES.get(machine, machine)
    if has == wanted:
        return good(f"Docker, on {has}")
    if (emulators / _EMULATORS[wanted]).exists() or platform.system() == "Darwin":
        return good(f"Docker, on {has}, which emulates {wanted}: slowly")
    return bad(
        f"Docker is on {has}, and the image is for {wanted}",
        f'set server.build = "codebuild", server.architecture = "{has}", or install QEMU for {wanted}',
    )


PROBES = (
    Probe("who deploys, and where", _caller),
    Probe("the region is on", _region),
    Probe("the account and region are bootstrapped for the CDK", _bootstrap),
    Probe("the stacks are ready for a deployment", _stacks),
    Probe("the image can be built", _image),
)
