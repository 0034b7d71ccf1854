"""A mistake in a file costs one message: file, key, value, remedy."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stacks.config_file import ConfigurationError, load_environment
from stacks.roles import ROLES
from tests.stacks.conftest import GITHUB_PROVIDER, ROOT

KEY = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
OWN_BUCKET = "arn:aws:s3:::mlflowonaws-dev-foundation-artifactsbucket88671897-x1y2z3"

DEV = (ROOT / "config" / "dev.toml").read_text()


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[[str], str]:
    """Return the message about a file with this text, and check that it names the file."""

    def refuse(text: str) -> str:
        file = tmp_path / "mine.toml"
        file.write_text(text)
        with pytest.raises(ConfigurationError) as refusal:
            load_environment(name="dev", path=str(file), directory=ROOT / "config")
        message = str(refusal.value)
        assert str(file) in message
        return message

    return refuse


def after(line: str, addition: str) -> str:
    assert line in DEV
    return DEV.replace(line, f"{line}\n{addition}", 1)


def after_all(addition: str) -> str:
    return f"{DEV}\n{addition}\n"


def identity(table: str, settings: str) -> str:
    return f"\n[identity.{table}]\n{settings}\n"


def github(settings: str, *, repository: str = "example/models") -> str:
    return f'\n[[identity.github]]\nrole = "viewer"\nrepository = "{repository}"\n{settings}\n'


MISTAKES = {
    "an unknown key": (
        after("[database]", "backup_dais = 7"),
        "database.backup_dais = 7: is not a setting",
        "did you mean backup_days?",
    ),
    "an unknown table": (DEV + "\n[databse]\nport = 1\n", "databse", "did you mean database?"),
    "a key like no other": (
        after("[database]", "zzz = 7"),
        "database.zzz = 7",
        "settings here are engine, engine_version",
    ),
    "a bad CIDR": (
        after("[network]", 'cidr = "10.0.0.0/33"'),
        'network.cidr = "10.0.0.0/33"',
        "such as 10.0.0.0/16",
    ),
    "a CIDR with host bits": (
        after("[network]", 'cidr = "10.0.0.1/16"'),
        'network.cidr = "10.0.0.1/16"',
        "such as 10.0.0.0/16",
    ),
    "a network too small": (
        after("[network]", 'cidr = "10.0.0.0/24"'),
        'network.cidr = "10.0.0.0/24"',
        "use a /16 to /22",
    ),
    "more NATs than zones": (
        after("[network]", "nat_count = 3"),
        "network.nat_count = 3",
        "one NAT per zone",
    ),
    "names for other zones": (
        after("[network]", 'zone_names = ["eu-north-1a"]'),
        "names 1 zones, but zones = 2",
        "make the two agree",
    ),
    "a retention below a week": (
        after("[database]", "backup_days = 6"),
        "database.backup_days = 6",
        "use 7 or more",
    ),
    "a log retention nobody offers": (
        after("[database]", "log_days = 100"),
        "the next one is 120",
        "the next one is 120",
    ),
    "text for a number": (
        after("[database]", 'backup_days = "7"'),
        'database.backup_days = "7"',
        "write digits only",
    ),
    "a number for a switch": (
        DEV.replace("multi_az = false", "multi_az = 0"),
        "database.multi_az = 0",
        "write true or false",
    ),
    "a missing setting": (
        DEV.replace('instance_class = "t4g.micro"', ""),
        "database.instance_class: is missing",
        "add it: Instance class",
    ),
    "the default port": (after("[database]", "port = 5432"), "database.port = 5432", "such as 5433"),
    "too many connections": (
        DEV.replace("max_connections = 100", "max_connections = 101"),
        "database.max_connections = 101: is more than t4g.micro supports",
        "use 100 at most",
    ),
    "storage without room to grow": (
        after("[database]", "storage_gib = 100"),
        "database.max_storage_gib = 100",
        "use 110 or more",
    ),
    "a database that can be overloaded": (
        DEV.replace("max_tasks = 2", "max_tasks = 3"),
        "server.database_connections = 20: can overload",
        "use 14 at most",
    ),
    "too few connections for a worker": (
        DEV.replace("memory_mib = 1024", "memory_mib = 2048").replace(
            "database_connections = 20", "database_connections = 12\nworkers = 2"
        ),
        "server.database_connections = 12",
        "use 24 or more",
    ),
    "memory that Fargate does not offer": (
        DEV.replace("memory_mib = 1024", "memory_mib = 1000"),
        "server.memory_mib = 1000",
        "use one of 1024, 2048",
    ),
    "too little memory for the workers": (
        DEV.replace("cpu = 512", "cpu = 512\nworkers = 2"),
        "server.memory_mib = 1024",
        "use 1536 or more",
    ),
    "fewer tasks than the least": (
        DEV.replace("min_tasks = 1", "min_tasks = 3"),
        "server.max_tasks = 2",
        "at least as large",
    ),
    "two sources of one image": (
        after("[server]", 'image_uri = "a/b:1"\nbase_image = "c"'),
        'server.base_image = "c"',
        "remove one of the two",
    ),
    "the whole internet for an internal load balancer": (
        DEV.replace("10.0.0.0/8", "0.0.0.0/0"),
        'ingress.allowed_cidrs = ["0.0.0.0/0"]',
        "list the networks of your clients",
    ),
    "the whole internet past the edge": (
        DEV.replace("10.0.0.0/8", "0.0.0.0/0").replace("facing = false", "facing = true")
        + "[identity]\nedge_jwt_check = false\n",
        "identity.edge_jwt_check = false: would let anyone in 0.0.0.0/0",
        "leave it on",
    ),
    "a role of any account": (
        DEV + identity("roles.viewer", 'iam_roles = ["arn:aws:iam::*:role/team"]'),
        'identity.roles.viewer.iam_roles.0 = "arn:aws:iam::*:role/team": has no account',
        "write its 12 digits",
    ),
    "a role of no account": (
        DEV + identity("roles.approver", 'iam_roles = ["arn:aws:iam:::role/team"]'),
        "has no account",
        "write its 12 digits",
    ),
    "a user for a role": (
        DEV + identity("roles.approver", 'iam_roles = ["arn:aws:iam::111122223333:user/eve"]'),
        "has no role",
        "write `role/` and a name",
    ),
    "every identity of an account": (
        DEV + identity("roles.approver", 'iam_roles = ["arn:aws:iam::111122223333:*"]'),
        "has no role",
        "`*` may stand only after `role/`",
    ),
    "a session for a role": (
        DEV + identity("roles.approver", 'iam_roles = ["arn:aws:sts::111122223333:assumed-role/a/b"]'),
        "is not an IAM role's ARN",
        "write arn:aws:iam::ACCOUNT:role/NAME",
    ),
    "a name for a role": (
        DEV + identity("roles.approver", 'iam_roles = ["data-science"]'),
        "is not an IAM role's ARN",
        "write arn:aws:iam::ACCOUNT:role/NAME",
    ),
    "a role that does not exist": (
        DEV + identity("roles.owner", "iam_roles = []"),
        "identity.roles.owner",
        f"settings here are {', '.join(role.name for role in ROLES)}",
    ),
    "a sign-in page that Cognito refuses": (
        after_all('[identity]\ndomain_prefix = "my-aws-mlflow"'),
        'identity.domain_prefix = "my-aws-mlflow": contains aws',
        "choose another prefix",
    ),
    "an endless session": (
        after_all("[identity]\nsession_hours = 169"),
        "identity.session_hours = 169",
        "use 168 at most",
    ),
    "metadata in clear": (
        DEV + identity("saml", 'name = "Company"\nmetadata_url = "http://idp.example.com/metadata"'),
        'identity.saml.metadata_url = "http://idp.example.com/metadata"',
        "without ? and #",
    ),
    "a client secret": (
        DEV
        + identity(
            "oidc", 'name = "Company"\nissuer = "https://idp"\nclient_id = "x"\nclient_secret = "hush"'
        ),
        "identity.oidc.client_secret",
        "did you mean client_secret_name?",
    ),
    "two providers of one name": (
        DEV
        + identity("saml", 'name = "Company"\nmetadata_url = "https://idp"')
        + identity(
            "oidc", 'name = "Company"\nissuer = "https://idp"\nclient_id = "x"\nclient_secret_name = "y"'
        ),
        'identity.oidc.name = "Company"',
        "give each its own name",
    ),
    "any workflow of a repository": (
        DEV + github('name = "a"'),
        "identity.github.0.branch: is missing, and so is environment",
        "set exactly one of the two",
    ),
    "a workflow in two places": (
        DEV + github('name = "a"\nbranch = "main"\nenvironment = "production"'),
        'identity.github.0.branch = "main": is set, and so is environment',
        "set exactly one",
    ),
    "a pattern for a branch": (
        DEV + github('name = "a"\nbranch = "*"'),
        'identity.github.0.branch = "*"',
        "write it in full",
    ),
    "a pattern for a repository": (
        DEV + github('name = "a"\nbranch = "main"', repository="example/*"),
        'identity.github.0.repository = "example/*"',
        "write OWNER/NAME",
    ),
    "one name for two roles": (
        DEV + github('name = "a"\nbranch = "main"') + github('name = "a"\nbranch = "next"'),
        'identity.github.name = "a": names more than one role',
        "give each role its own name",
    ),
    "a provider that nobody uses": (
        after_all(f'[identity]\ngithub_provider_arn = "{GITHUB_PROVIDER}"'),
        "has no effect: there is no [[identity.github]]",
        "add a role",
    ),
    "a service account of no cluster": (
        DEV + '[[identity.eks]]\nname = "a"\nrole = "viewer"\nnamespace = "n"\nservice_account = "s"\n',
        "identity.eks.0.oidc_provider_arn: is missing, and so is cluster_arn",
        "set oidc_provider_arn for IRSA",
    ),
    "half of the internet": (
        DEV.replace('"10.0.0.0/8"', '"10.0.0.0/8", "128.0.0.0/1"'),
        'ingress.allowed_cidrs = ["10.0.0.0/8", "128.0.0.0/1"]',
        "list the networks",
    ),
    "nobody": (DEV.replace('["10.0.0.0/8"]', "[]"), "ingress.allowed_cidrs = []", "list 1 or more"),
    "no certificate and no zone": (
        "\n".join(line for line in DEV.splitlines() if "hosted_zone" not in line),
        "ingress.certificate_arn: is missing, and so is hosted_zone_id",
        "set certificate_arn, or hosted_zone_id",
    ),
    "half a zone": (
        "\n".join(line for line in DEV.splitlines() if "hosted_zone_name" not in line),
        "ingress.hosted_zone_name: is missing",
        "set both, or neither",
    ),
    "a zone of another domain": (
        DEV.replace('"dev.example.com"', '"example.org"'),
        'ingress.hosted_zone_name = "example.org"',
        "name the zone",
    ),
    "a URL for a domain": (
        DEV.replace('"mlflow.dev', '"https://mlflow.dev'),
        "ingress.domain",
        "write it alone",
    ),
    "an account that is a number": (
        "account = 111122223333\n" + DEV,
        "account = 111122223333",
        'write it in "quotes"',
    ),
    "two ways into the network": (
        after("[network]", 'transit_gateway_id = "tgw-1"\npeering_connection_id = "pcx-1"'),
        'network.transit_gateway_id = "tgw-1": is set, and so is peering_connection_id',
        "set one of the two",
    ),
    "a way without networks behind it": (
        after("[network]", 'transit_gateway_id = "tgw-1"'),
        "network.routed_cidrs = []: is empty",
        "list the networks",
    ),
    "networks without a way to them": (
        after("[network]", 'routed_cidrs = ["10.0.0.0/16"]'),
        'network.routed_cidrs = ["10.0.0.0/16"]: lead nowhere',
        "set transit_gateway_id or peering_connection_id",
    ),
    "clients in the address range of the VPC": (
        after("[network]", 'transit_gateway_id = "tgw-1"\nrouted_cidrs = ["10.42.7.0/24"]'),
        'network.routed_cidrs = "10.42.7.0/24": overlaps with cidr = 10.42.0.0/16',
        "give the VPC another cidr",
    ),
    "a sign-in host without a certificate": (
        after_all('[identity]\nsign_in_domain = "login.example.com"'),
        "identity.sign_in_certificate_arn: is missing",
        "set both, or neither",
    ),
    "two hosts for one sign-in page": (
        after_all(
            '[identity]\ndomain_prefix = "a"\nsign_in_domain = "login.example.com"\n'
            'sign_in_certificate_arn = "arn:aws:acm:us-east-1:111122223333:certificate/a"'
        ),
        'identity.domain_prefix = "a": has no effect beside sign_in_domain = login.example.com',
        "remove one of the two",
    ),
    "one person twice": (
        DEV.replace('["you@example.com"]', '["you@example.com", "you@example.com"]'),
        "lists you@example.com twice",
        "remove one of the two",
    ),
    "an alias for a key": (
        after("[database]", 'key_arn = "alias/mine"'),
        'database.key_arn = "alias/mine": is not the ARN of a KMS key',
        "not an alias",
    ),
    "sealing never": (
        after("[artifacts]", 'seal_at = "never"'),
        'artifacts.seal_at = "never"',
        'use "registration" or "promotion"',
    ),
    "a lock of no length": (
        after_all('[artifacts.object_lock]\nmode = "governance"\nyears = 0'),
        "artifacts.object_lock.years = 0",
        "1",
    ),
    "a replica by its name": (
        after_all(f'[artifacts.sealed_replica]\nbucket_arn = "my-replicas"\nkey_arn = "{KEY}"'),
        'artifacts.sealed_replica.bucket_arn = "my-replicas": is not the ARN of a bucket',
        "write one such as arn:aws:s3:::my-replicas",
    ),
    "a bucket that is its own replica": (
        after_all(f'[artifacts.sealed_replica]\nbucket_arn = "{OWN_BUCKET}"\nkey_arn = "{KEY}"'),
        f'artifacts.sealed_replica.bucket_arn = "{OWN_BUCKET}": is a bucket of artifacts',
        "make a bucket for the copies",
    ),
    "a replica under the key of the artifacts": (
        after("[artifacts]", f'key_arn = "{KEY}"')
        + f'\n[artifacts.sealed_replica]\nbucket_arn = "arn:aws:s3:::my-replicas"\nkey_arn = "{KEY}"\n',
        f'artifacts.sealed_replica.key_arn = "{KEY}": is artifacts.key_arn',
        "name another key",
    ),
    "an owner of copies that owns them anyway": (
        'account = "111122223333"\n'
        + after_all(
            f'[artifacts.sealed_replica]\nbucket_arn = "arn:aws:s3:::my-replicas"\nkey_arn = "{KEY}"\n'
            'account = "111122223333"'
        ),
        'artifacts.sealed_replica.account = "111122223333": is the deployment\'s own account',
        "remove it",
    ),
    "a second region that is the first": (
        'region = "eu-central-1"\n'
        + after_all('[backup]\ndays = 35\n[backup.recovery]\nregion = "eu-central-1"'),
        'backup.recovery.region = "eu-central-1": is region = eu-central-1 itself',
        "choose another region of the same partition",
    ),
    "a second region in another partition": (
        'region = "eu-central-1"\n'
        + after_all('[backup]\ndays = 35\n[backup.recovery]\nregion = "us-gov-west-1"'),
        'backup.recovery.region = "us-gov-west-1": is region = eu-central-1 itself, or in another partition',
        "choose another region of the same partition",
    ),
    "a second region without a first": (
        after_all('[backup]\ndays = 35\n[backup.recovery]\nregion = "eu-west-1"'),
        "region: is missing, and backup.recovery.region must be another",
        "write the region of the deployment",
    ),
    "a pager's URL in place of its secret's name": (
        DEV.replace("[monitoring]", '[monitoring]\npager_secret_name = "https://pager.example.com/?key"'),
        "monitoring.pager_secret_name",
        "use letters, digits and / _ + = . @ - only",
    ),
    "a platform that is always slow": (
        DEV.replace("[monitoring]", "[monitoring]\nslow_seconds = 0.0"),
        "monitoring.slow_seconds = 0.0: is too small",
        "use 0.1 or more",
    ),
    "a runbook that nobody finds": (
        DEV.replace("[monitoring]", '[monitoring]\nrunbook_url = "wiki/runbook"'),
        'monitoring.runbook_url = "wiki/runbook": is not the address of a runbook',
        "write one that begins with https://",
    ),
    "a workspace by its name": (
        after_all('[monitoring.slack]\nworkspace_id = "company"\nchannel_id = "C0123"'),
        'monitoring.slack.workspace_id = "company": is not a workspace\'s id',
        "write one such as T0123ABCD",
    ),
    "a budget of nothing": (
        after_all('[cost]\nemails = ["ada@company.org"]\nmonthly_budget_usd = 0'),
        "cost.monthly_budget_usd = 0: is too small",
        "use 1 or more",
    ),
    "a budget that nobody is told of": (
        after_all("[cost]\nemails = []\nmonthly_budget_usd = 100"),
        "cost.emails = []: is too short",
        "list 1 or more",
    ),
    "a lock that refuses the backups": (
        after_all('[backup]\ndays = 35\n[backup.lock]\nmode = "governance"\nmin_days = 7\nmax_days = 30'),
        "backup.days = 35: is not within lock.min_days = 7 and lock.max_days = 30",
        "change one of the three",
    ),
    "a lock that refuses the continuous backup": (
        after_all('[backup]\ndays = 90\n[backup.lock]\nmode = "governance"\nmin_days = 60\nmax_days = 90'),
        "backup.lock.min_days = 60: refuses the continuous backup of the bucket, which is kept for 35 days",
        "set artifacts = false",
    ),
    "public addresses without public subnets": (
        DEV.replace("internet_facing = false", "internet_facing = true")
        + '\n[network.existing]\nvpc_id = "vpc-1"\navailability_zones = ["eu-west-1a", "eu-west-1b"]\n'
        'private_subnet_ids = ["subnet-1", "subnet-2"]\nisolated_subnet_ids = ["subnet-3", "subnet-4"]\n',
        "network.existing.public_subnet_ids: is missing, and ingress.internet_facing = true",
        "list one public subnet for each zone",
    ),
    "malformed TOML": (DEV + "\nx = ", "is not valid TOML", "correct that line"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_remedy(mistake: str, refuse: Callable[[str], str]) -> None:
    text, finding, remedy = MISTAKES[mistake]
    message = refuse(text)
    assert finding in message
    assert remedy in message.split("; ", 1)[1]


def test_every_mistake_is_reported_at_once(refuse: Callable[[str], str]) -> None:
    message = refuse(after("[database]", "backup_days = 1\nport = 80"))
    assert len(message.splitlines()) == 1 + 2


def test_an_unknown_environment_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"ENV=stage has no file .*; use ENV=dev or ENV=prod"):
        load_environment(name="stage", path=None, directory=ROOT / "config")


def test_no_environment_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"add ENV=dev or ENV=prod .with cdk, -c env=…"):
        load_environment(name=None, path=None, directory=ROOT / "config")


@pytest.mark.parametrize("name", ["../etc/passwd", "Prod", "a b", "x" * 21])
def test_a_name_that_no_stack_could_carry_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name an environment"):
        load_environment(name=name, path=None, directory=ROOT / "config")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_environment(name="dev", path=str(tmp_path / "none.toml"), directory=ROOT / "config")


def test_a_path_takes_the_place_of_the_environments_file(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(DEV.replace("mlflow.dev", "other.dev"))
    config = load_environment(name="brand-new", path=str(file), directory=ROOT / "config")
    assert config.ingress.domain == "other.dev.example.com"


def cdk(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the CDK as a person would, on a machine whose AWS profile is broken and has no way to AWS."""
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(
        "[profile broken]\nregion = eu-north-1\ncredential_process = false\n"
    )
    environment = {
        "HOME": str(home),
        "PATH": f"{ROOT / '.venv/bin'}:/usr/bin:/bin",
        "AWS_PROFILE": "broken",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "CI": "1",
        **{key: os.environ[key] for key in ("TMPDIR", "LANG") if key in os.environ},
    }
    program = [str(ROOT / ".venv/bin/node"), str(ROOT / "node_modules/aws-cdk/bin/cdk")]
    return subprocess.run(
        [*program, "synth", "--quiet", *arguments, "--output", str(home / "out")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.mark.slow
def test_cdk_synth_works_offline_beside_a_broken_aws_profile(tmp_path: Path) -> None:
    result = cdk("-c", "env=dev", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {file.name for file in (tmp_path / "out").glob("*.template.json")} == {
        "MlflowOnAws-dev-Foundation.template.json",
        "MlflowOnAws-dev-Service.template.json",
    }


def test_cdk_synth_reports_a_mistake_in_one_message(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(DEV.replace("10.0.0.0/8", "0.0.0.0/0"))
    result = cdk("-c", "env=dev", "-c", f"config={file}", home=tmp_path)
    assert result.returncode != 0
    assert f"configuration error: {file}: is not a valid configuration" in result.stderr
    assert 'ingress.allowed_cidrs = ["0.0.0.0/0"]' in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
