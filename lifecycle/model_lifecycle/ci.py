"""Which CI run decides, as GitHub tells it.

The names are GitHub's default environment variables
(https://docs.github.com/actions/reference/workflows-and-actions/variables).
"""

from __future__ import annotations

from collections.abc import Mapping


def run_of(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The run's URL, workflow, commit and actor; None outside of GitHub Actions.

    It is what the job says about itself, not verified by the server.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return None
    base = f"{environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{environ.get('GITHUB_REPOSITORY', '')}"
    url = f"{base}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}"
    attempt = environ.get("GITHUB_RUN_ATTEMPT", "1")
    found = {
        "url": url if attempt == "1" else f"{url}/attempts/{attempt}",
        "workflow": environ.get("GITHUB_WORKFLOW", ""),
        "commit": environ.get("GITHUB_SHA", ""),
        "actor": environ.get("GITHUB_ACTOR", ""),
    }
    return {name: value for name, value in found.items() if value}
