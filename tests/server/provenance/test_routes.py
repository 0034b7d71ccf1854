"""No route of the pinned MLflow that writes a protected tag, a stage or an alias is overlooked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlflow.protos import databricks_pb2, model_registry_pb2, service_pb2, webhooks_pb2
from mlflow.server import app as flask_app
from mlflow_aws_server.provenance.routes import Concern, Matter, Thing, matter_of

# Not evidence of who made or moved a model: what these methods tag is neither a run, a model nor a version.
OF_NO_CONCERN = {
    "setTraceTag": "traces",
    "setTraceTagV3": "traces",
    "deleteTraceTag": "traces",
    "deleteTraceTagV3": "traces",
    "startTrace": "traces",
    "startTraceV3": "traces",
    "endTrace": "traces",
    "createAssessment": "assessments of traces",
    "updateAssessment": "assessments of traces",
    "createDataset": "evaluation data sets",
    "setDatasetTags": "evaluation data sets",
    "deleteDatasetTag": "evaluation data sets",
    "logInputs": "the use of a data set by a run",
    "logMetric": "a metric",
    "logParam": "a param",
    "LogLoggedModelParams": "params",
    "createGatewaySecret": "the AI gateway",
    "updateGatewaySecret": "the AI gateway",
    "setGatewayEndpointTag": "the AI gateway",
    "deleteGatewayEndpointTag": "the AI gateway",
    "createPromptOptimizationJob": "jobs, which are switched off",
    # They read.
    "getLatestVersions": "reads",
    "createGatewayGuardrail": "the AI gateway",
}
_INTERESTING = {"tags", "tag", "key", "tag_key", "alias", "stage", "stages"}
_READS = {"GET"}


def _fields(message: Any, depth: int = 0) -> Iterator[str]:
    for field in message.fields:
        if field.name in _INTERESTING:
            yield field.name
        elif field.message_type is not None and depth < 4:
            yield from _fields(field.message_type, depth + 1)


def _methods() -> Iterator[tuple[str, str, str, Any]]:
    for module in (service_pb2, model_registry_pb2, webhooks_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
                    path = f"{endpoint.since.major}.0/{endpoint.path.lstrip('/')}"
                    yield method.name, endpoint.method, path, method.input_type


def _concrete(path: str) -> str:
    return path.replace("{model_id}", "m-1").replace("{tag_key}", "some")


def test_every_method_that_names_a_tag_a_stage_or_an_alias_is_judged_or_excused() -> None:
    overlooked, judged = [], 0
    for name, verb, path, message in _methods():
        if verb in _READS or name in OF_NO_CONCERN or not set(_fields(message)):
            continue
        for prefix in ("/api/", "/ajax-api/"):
            if matter_of(verb, _concrete(prefix + path)) is None:
                overlooked.append(f"{verb} {prefix}{path} ({name})")
            judged += 1
    assert not overlooked, "\n".join(
        ["Judge each in provenance/routes.py, or add it to OF_NO_CONCERN with the reason:", *overlooked]
    )
    assert judged == 2 * 19, f"Look at each method that came or went; then 2 * {judged // 2}"


def test_no_excuse_is_left_over() -> None:
    excused = OF_NO_CONCERN.keys() | NO_PLACES.keys()
    gone = sorted(excused - {name for name, *_ in _methods()})
    assert not gone, f"MLflow has these methods no more; remove their excuses: {', '.join(gone)}"


def test_every_judged_route_exists() -> None:
    rules = flask_app.url_map.bind("localhost")
    known = [
        (verb, prefix + _concrete(path.removeprefix("2.0/mlflow/")))
        for _, verb, path, _ in _methods()
        for prefix in ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
        if matter_of(verb, prefix + _concrete(path.removeprefix("2.0/mlflow/"))) is not None
    ]
    # Those above, and the deletion of a version.
    assert len(known) == 2 * 20
    for verb, path in known:
        assert rules.test(path, verb), f"{verb} {path}"


def test_every_path_of_flask_that_reaches_a_judged_handler_is_judged() -> None:
    rules = list(flask_app.url_map.iter_rules())

    def concern(rule: object) -> set[str]:
        path = rule.rule.replace("<model_id>", "m-1").replace("<tag_key>", "some")  # type: ignore[attr-defined]
        verbs = rule.methods - {"GET", "HEAD", "OPTIONS"}  # type: ignore[attr-defined]
        return {verb for verb in verbs if matter_of(verb, path) is not None}

    handlers = {rule.endpoint for rule in rules if concern(rule)}
    missed = [
        rule.rule
        for rule in rules
        if rule.endpoint in handlers and concern(rule) != set(rule.methods or ()) - {"GET", "HEAD", "OPTIONS"}
    ]
    # And those that write tags of data sets, in another version of the API.
    assert len(handlers) == 22
    assert missed == []


def test_protobuf_has_no_second_spelling_for_what_is_judged_by_name() -> None:
    by_name = (Concern.STAMP, Concern.CREATE, Concern.TAG, Concern.UNTAG)
    messages = [
        message
        for name, verb, path, message in _methods()
        if (matter := matter_of(verb, "/api/" + _concrete(path))) is not None and matter.concern in by_name
    ]
    assert len(messages) == 15
    for message in messages:
        spelt = {field.name: field.json_name for field in message.fields}
        assert "key" in spelt or "tags" in spelt
        assert spelt.get("key", "key") == "key"
        assert spelt.get("tags", "tags") == "tags"
        if "tags" in spelt:
            tag = message.fields_by_name["tags"].message_type
            assert [(field.name, field.json_name) for field in tag.fields] == [
                ("key", "key"),
                ("value", "value"),
            ]


# What else is called so is not where this server's artifacts are kept.
NO_PLACES = {
    "createDataset": "an evaluation data set's source is free text",
    "upsertDatasetRecords": "where a record comes from: free text",
    "logInputs": "where a data set comes from: free text",
    "createAssessment": "who assessed it",
    "updateAssessment": "who assessed it",
    "startTraceV3": "who assessed it; where its data are is a tag, judged as it is stored",
    "searchTracesV3": "reads",
    "createPresignedDownloadUrl": "reads",
    "createPresignedUploadUrl": "the gate refuses it to everybody",
    "createWorkspace": "the gate refuses it to everybody",
    "updateWorkspace": "the gate refuses it to everybody",
    "createPromptOptimizationJob": "jobs, which are switched off",
    "createIssue": "causes",
    "createEndpointBinding": "the AI gateway",
    "deleteEndpointBinding": "the AI gateway",
}
_PLACE = re.compile(r"artifact|location|source|storage|uri|root|path|directory")
_NO_PLACE = re.compile(r"source_run_id|.*_type|run_.*|model_.*")


def test_every_method_that_names_a_place_is_judged_or_excused() -> None:
    named = {
        (name, field, matter_of(verb, "/api/" + _concrete(path)))
        for name, verb, path, message in _methods()
        if verb not in _READS and name not in NO_PLACES
        for field in _all_fields(message)
        if _PLACE.search(field) and not _NO_PLACE.fullmatch(field)
    }
    assert named == {
        ("createExperiment", "artifact_location", Matter(Concern.CREATE, Thing.EXPERIMENT)),
        ("createModelVersion", "source", Matter(Concern.STAMP, Thing.VERSION)),
    }, "Judge each in provenance/places.py, or add it to NO_PLACES with the reason"


def _all_fields(message: Any, depth: int = 0) -> Iterator[str]:
    for field in message.fields:
        yield field.name
        if field.message_type is not None and depth < 4:
            yield from _all_fields(field.message_type, depth + 1)


def test_graphql_changes_nothing() -> None:
    from mlflow.server.graphql.graphql_schema_extensions import schema

    # MLflow files two searches under mutations; the third echoes what it is given.
    mutations = set(schema.graphql_schema.mutation_type.fields)
    assert mutations == {"mlflowSearchDatasets", "mlflowSearchRuns", "testMutation"}
