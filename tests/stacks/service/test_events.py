"""Only the server tells events, and only to the deployment's own bus."""

from tests.stacks.templates import Assembly, as_list


def test_only_the_server_puts_events_and_on_this_bus_only(either: Assembly) -> None:
    (bus,) = [
        each
        for each, resource in either.service.resources.items()
        if resource["Type"] == "AWS::Events::EventBus"
    ]
    allowed = {
        (who, str(target))
        for template in either.templates
        for who, action, target in template.allowed()
        if action.startswith("events:Put")
    }
    ((policy, target),) = allowed
    assert bus in target
    (role,) = as_list(either.service.resources[policy]["Properties"]["Roles"])
    assert "ServerRole" in str(role)
    assert bus in str(either.service.outputs["EventBusName"])
