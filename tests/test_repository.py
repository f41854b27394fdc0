"""What a fresh clone promises: pinned lists without addresses, a compose file that fits its schema, two commands."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gpu.lock"])
def test_the_pinned_lists_are_fully_pinned_and_name_no_registry(name):
    lines = [line for line in (REPOSITORY / name).read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 100
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[0-9][^\s;]*( ; .+)?", line)] == []
    assert "torch==2.13.0" in lines
    assert "torchvision==0.28.0" in lines


def test_exactly_one_faiss_in_each_list():
    cpu, gpu = ((REPOSITORY / name).read_text() for name in ("requirements.lock", "requirements-gpu.lock"))
    assert ("faiss-cpu==" in cpu, "faiss-gpu==" in cpu) == (True, False)
    assert ("faiss-cpu==" in gpu, "faiss-gpu==" in gpu) == (False, True)


def test_compose_publishes_on_loopback_only_pins_images_and_asks_for_secrets():
    text = (REPOSITORY / "docker-compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    assert {"postgres", "redis", "server", "services", "init", "worker-cpu", "worker-gpu"} == set(services)
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:4200:4200"]
    for name, service in services.items():
        assert re.search(r":\d+\.\d+", service["image"]), name
    assert "${PREFECT_AUTH:?" in text
    assert "${POSTGRES_PASSWORD:?" in text


def test_the_readme_shows_the_two_commands_and_the_make_targets_exist():
    readme, makefile = (REPOSITORY / "README.md").read_text(), (REPOSITORY / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench", "setup"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make demo" in readme
    assert "make test" in readme
