"""The short deployment name, expanded for our own names only."""

import pytest

from flows.prefect_plugin import expand

RUN = ["prefect", "deployment", "run"]
SHORT, LONG = "extract-microlens", "extract-microlens/extract-microlens"


@pytest.mark.parametrize(
    "words",
    [
        [*RUN, "{name}"],
        [*RUN, "{name}", "-p", "variant=100k", "-p", "limit=200"],
        [*RUN, "-p", "limit=2", "{name}"],
        [*RUN, "-p", "limit=2", "--param", "variant=100k", "--watch", "{name}", "--tag", "extract-amazon"],
        [*RUN, "--param=limit=2", "{name}"],
        [*RUN, "--watch", "{name}"],
        [*RUN, "--no-watch", "--watch-timeout", "60", "{name}"],
        [*RUN, "--flow-run-name", "extract-amazon", "{name}"],
        [*RUN, "--name", "{name}", "--watch"],
        [*RUN, "-p", "limit=2", "--name={name}"],
        ["prefect", "--profile", "lab", "deployment", "run", "{name}"],
    ],
)
def test_our_bare_name_is_expanded_wherever_it_may_stand(words):
    assert expand([word.format(name=SHORT) for word in words]) == [word.format(name=LONG) for word in words]


@pytest.mark.parametrize(
    "words",
    [
        [*RUN, "pipeline/pipeline"],
        [*RUN, "pipeline/pipeline", "-p", "dataset=synthetic"],
        [*RUN, "someone-elses"],
        [*RUN, "-p", "extract-microlens"],
        [*RUN, "--tag", "pipeline", "someone-elses"],
        [*RUN, "--id", "8b1c0f0e-7f2e-4f0b-9c53-3f1a2f6f8a11"],
        [*RUN, "--name"],
        [*RUN],
        ["prefect", "deployment", "inspect", "pipeline"],
        ["prefect", "flow-run", "ls", "pipeline"],
    ],
)
def test_everything_else_stays(words):
    assert expand(words) == words
