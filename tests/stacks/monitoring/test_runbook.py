"""Every command of the runbook is one that AWS's own service models know, with these options."""

import re
import shlex

import botocore.session
import pytest
from botocore import xform_name

from tests.local.runbook import commands

# The AWS CLI's own, of every command.
OPTIONS = {"query", "output", "region"}


@pytest.fixture(scope="module")
def session() -> botocore.session.Session:
    return botocore.session.Session()


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_runbook_is_one_of_aws(command: str, session: botocore.session.Session) -> None:
    _, service, operation, *rest = shlex.split(command)
    given = {word.removeprefix("--") for word in rest if re.fullmatch(r"--[a-z-]+", word)} - OPTIONS
    model = session.get_service_model(service)
    names = {xform_name(each, "-"): each for each in model.operation_names}
    assert operation in names
    shape = model.operation_model(names[operation]).input_shape
    assert shape is not None
    members = {xform_name(each, "-") for each in shape.members}
    assert {each.removeprefix("no-") for each in given} <= members
    required = {xform_name(each, "-") for each in shape.required_members}
    assert required <= given
