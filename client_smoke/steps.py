"""The steps, in the order they run. A new one is a function elsewhere and a line here."""

from __future__ import annotations

from client_smoke.artifacts import (
    artifacts_come_back_identical,
    objects_are_versioned_and_encrypted,
    role_reaches_s3,
    server_never_carries_artifacts,
)
from client_smoke.cleanup import nothing_stays_behind
from client_smoke.evidence import (
    author_cannot_be_forged,
    promotion_leaves_history,
    run_records_its_author,
    version_records_its_author,
)
from client_smoke.identity import forged_token_is_refused, no_token_is_refused, server_knows_you
from client_smoke.libraries import client_libraries_load
from client_smoke.models import (
    alias_names_the_champion,
    model_is_registered_as_taught,
    model_is_registered_by_name,
    stage_promotes_and_archives,
    version_predicts_the_same,
)
from client_smoke.roles import contributor_is_refused_a_promotion, viewer_is_refused_a_write
from client_smoke.sealing import (
    approver_cannot_change_what_is_sealed,
    contributor_is_refused_a_frozen_run,
    version_is_sealed,
    you_cannot_change_what_is_sealed,
)
from client_smoke.server import server_is_healthy
from client_smoke.smoke import Step
from client_smoke.tracking import (
    experiment_has_an_s3_root,
    metric_history_is_in_order,
    run_is_logged,
    search_finds_the_run,
)
from client_smoke.transport import certificate_is_valid, no_plain_http, only_tls_1_3

STEPS: tuple[Step, ...] = (
    Step(certificate_is_valid, "the certificate is valid for this host, from a CA you trust"),
    Step(only_tls_1_3, "the server speaks TLS 1.3 and nothing older", needs=(certificate_is_valid,)),
    Step(no_plain_http, "nothing is served over plain HTTP", needs=(certificate_is_valid,)),
    Step(client_libraries_load, "this client's libraries work together"),
    Step(
        server_is_healthy,
        "the server is healthy and runs an MLflow that fits this client",
        needs=(certificate_is_valid, client_libraries_load),
    ),
    Step(
        no_token_is_refused,
        "without a token nobody gets in",
        needs=(certificate_is_valid, client_libraries_load),
    ),
    Step(
        forged_token_is_refused,
        "a forged token is refused",
        needs=(certificate_is_valid, client_libraries_load),
    ),
    Step(server_knows_you, "the server knows who you are, and your role", needs=(server_is_healthy,)),
    Step(experiment_has_an_s3_root, "an experiment keeps its artifacts in S3", needs=(server_is_healthy,)),
    Step(role_reaches_s3, "your role reads and writes artifacts in S3", needs=(experiment_has_an_s3_root,)),
    Step(run_is_logged, "a run takes params, metrics, tags, a plot and a file", needs=(role_reaches_s3,)),
    Step(
        run_records_its_author,
        "a run records you as its author",
        needs=(server_knows_you, run_is_logged),
    ),
    Step(metric_history_is_in_order, "metric history comes back exact and in order", needs=(run_is_logged,)),
    Step(search_finds_the_run, "search finds the run", needs=(run_is_logged,)),
    Step(artifacts_come_back_identical, "artifacts come back byte for byte", needs=(run_is_logged,)),
    Step(
        objects_are_versioned_and_encrypted,
        "S3 holds them versioned, under a KMS key",
        needs=(run_is_logged,),
    ),
    Step(server_never_carries_artifacts, "artifacts never pass the server", needs=(run_is_logged,)),
    Step(
        model_is_registered_as_taught,
        "a model is logged and registered as courses teach",
        needs=(run_is_logged,),
    ),
    Step(
        model_is_registered_by_name,
        "a second version is registered the MLflow 3 way",
        needs=(model_is_registered_as_taught,),
    ),
    Step(
        version_predicts_the_same,
        "the registered model loads and predicts the same",
        needs=(model_is_registered_as_taught,),
    ),
    Step(
        version_records_its_author,
        "a registered version records you as its author",
        needs=(server_knows_you, model_is_registered_as_taught),
    ),
    Step(
        author_cannot_be_forged,
        "no client can forge or remove an author",
        needs=(run_records_its_author, version_records_its_author),
    ),
    Step(
        viewer_is_refused_a_write,
        "a viewer reads and cannot write",
        needs=(server_knows_you, run_is_logged),
    ),
    Step(
        contributor_is_refused_a_promotion,
        "a contributor cannot promote",
        needs=(server_knows_you, model_is_registered_by_name),
    ),
    Step(
        stage_promotes_and_archives,
        "promotion to Production archives the old version",
        needs=(server_knows_you, model_is_registered_by_name),
    ),
    Step(
        promotion_leaves_history,
        "a promotion leaves a record that names who did it",
        needs=(stage_promotes_and_archives,),
    ),
    Step(
        alias_names_the_champion,
        "the champion alias loads the champion",
        needs=(
            server_knows_you,
            model_is_registered_by_name,
        ),
    ),
    Step(
        version_is_sealed,
        "what is registered is sealed, and S3 agrees with its manifest",
        needs=(model_is_registered_by_name,),
    ),
    Step(
        you_cannot_change_what_is_sealed,
        "what Production loads cannot be written or deleted",
        needs=(role_reaches_s3, version_is_sealed),
    ),
    Step(
        approver_cannot_change_what_is_sealed,
        "nor by an approver",
        needs=(version_is_sealed,),
    ),
    Step(
        contributor_is_refused_a_frozen_run,
        "a contributor cannot change the run behind a registered version",
        needs=(server_knows_you, model_is_registered_by_name),
    ),
)

CLEANUP = Step(nothing_stays_behind, "everything this run made is removed")
