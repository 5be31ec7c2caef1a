"""The image of scripts/container/Containerfile, built and run as strangers run it."""

import json
from collections.abc import Iterator

import anthropic
import pytest

from tests.container.podman import IMAGE, Podman, podman
from tests.support.processes import answers, free_port

pytestmark = pytest.mark.timeout(1_800)

HEALTHY = ("python3", "/opt/memstore/share/healthy.py")
NAMELESS = "12345"


@pytest.fixture(scope="module")
def image() -> Iterator[Podman]:
    with podman() as made:
        made.build()
        yield made


def test_the_image_serves_on_a_read_only_system_as_any_user_and_has_its_data_again(image: Podman) -> None:
    port = free_port()
    serve = ("serve", "--host", "127.0.0.1", "--port", str(port))
    volume = f"--user={NAMELESS}:{NAMELESS}", "--volume=kept:/var/lib/memstore"

    def wait() -> None:
        while not answers(port, "/readyz"):
            assert image("inspect", "service", "--format={{.State.Running}}").strip() == "true", image(
                "logs", "service"
            )

    image.start("service", *volume, command=serve)
    wait()
    assert image.status("exec", "service", *HEALTHY, str(port)) == 0
    assert image.status("exec", "service", *HEALTHY, str(free_port())) == 1
    assert image.status("exec", "service", "touch", "/written") != 0
    assert image("exec", "service", "stat", "--format=%u %a", "/var/lib/memstore/data").split() == [NAMELESS, "700"]
    secret = image("exec", "service", "cat", "/var/lib/memstore/data/api_key").strip()
    client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=secret, max_retries=0)
    store = client.beta.memory_stores.create(name="In a container")
    assert image("exec", "service", "memstore", "hold", store.id, "--reason", "case 7")
    audit = [json.loads(line) for line in image("exec", "service", "memstore", "audit", "list", "--json").splitlines()]
    assert audit[-1]["actor"]["user_id"] == f"cli:{NAMELESS}"
    image("stop", "--time=30", "service")
    assert image("inspect", "service", "--format={{.State.ExitCode}}").strip() == "0", "it was asked to end, and did"
    printed = image("logs", "service")
    assert secret not in printed
    image("rm", "service")

    image.start("service", *volume, command=serve)
    wait()
    assert client.beta.memory_stores.retrieve(store.id).name == "In a container"
    image("rm", "--force", "service")


def test_the_image_has_no_root_and_a_health_check(image: Podman) -> None:
    (about,) = json.loads(image("inspect", IMAGE))
    assert about["Config"]["User"] == "65532:65532"
    assert about["Healthcheck"]["Test"] == ["CMD", *HEALTHY]
    assert about["Config"]["StopSignal"] == "SIGTERM"
