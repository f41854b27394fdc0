"""The short deployment name, expanded for our own names only."""

import pytest

from flows.prefect_plugin import expand


@pytest.mark.parametrize(
    ("words", "expanded"),
    [
        (
            ["prefect", "deployment", "run", "extract-microlens", "-p", "variant=100k"],
            ["prefect", "deployment", "run", "extract-microlens/extract-microlens", "-p", "variant=100k"],
        ),
        (["prefect", "deployment", "run", "pipeline/pipeline"], ["prefect", "deployment", "run", "pipeline/pipeline"]),
        (["prefect", "deployment", "run", "someone-elses"], ["prefect", "deployment", "run", "someone-elses"]),
        (["prefect", "deployment", "inspect", "pipeline"], ["prefect", "deployment", "inspect", "pipeline"]),
        (["prefect", "deployment", "run"], ["prefect", "deployment", "run"]),
    ],
)
def test_only_our_bare_names_after_deployment_run_are_expanded(words, expanded):
    assert expand(words) == expanded
