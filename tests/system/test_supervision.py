"""Whatever is killed comes back; when the supervisor is killed, nothing outlives it for long."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from tests.system.product import Product
from tests.system.test_up import alive, eventually, processes_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

BACK_S = 2.0
GONE_S = 10.0


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("supervision") / "home") as product:
        product.token()
        yield product


@pytest.mark.parametrize("kind", ["api", "worker", "postgres"])
def test_a_killed_child_is_back_within_2_s_and_what_was_stored_is_there(product: Product, kind: str) -> None:
    (killed,) = product.pids_of(kind)

    os.kill(killed, signal.SIGKILL)

    assert eventually(lambda: product.pids_of(kind) not in ([], [killed]), BACK_S)
    product.wait_ready()
    assert eventually(lambda: answers_me(product), GONE_S)


def test_a_backend_that_is_killed_costs_no_restart_of_anything_else(product: Product) -> None:
    product.wait_ready()
    before = product.pids()
    (backend,) = product.rows(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1"
    )[0]

    os.kill(backend, signal.SIGKILL)

    assert eventually(lambda: answers_me(product), GONE_S)
    assert product.pids() == before


def test_a_restarted_api_leaves_the_bootstrap_code_as_it_was(tmp_path: Path) -> None:
    with Product(tmp_path / "home") as product:
        code = (product.home / "bootstrap-code").read_text()
        assert (product.home / "bootstrap-code").stat().st_mode & 0o777 == 0o600
        (killed,) = product.pids_of("api")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: product.pids_of("api") not in ([], [killed]), BACK_S)
        product.wait_ready()

        assert (product.home / "bootstrap-code").read_text() == code
        assert product.get("/api/v1/users/me")["user"]["role"] == "admin"


def test_children_of_a_killed_supervisor_end_within_10_s_and_the_next_up_heals(product: Product) -> None:
    children = [pid for kind in ("api", "worker", "postgres") for pid in product.pids_of(kind)]

    product.kill_supervisor()

    assert eventually(lambda: not any(alive(pid) for pid in children), GONE_S)
    product.start()
    assert product.get("/api/v1/users/me")["user"]["username"] == "admin"


def test_an_up_right_after_the_supervisor_was_killed_heals_too(product: Product) -> None:
    children = [pid for kind in ("api", "worker", "postgres") for pid in product.pids_of(kind)]

    product.kill_supervisor()
    product.start()

    assert not any(alive(pid) for pid in children)
    assert product.get("/api/v1/users/me")["user"]["username"] == "admin"


def test_children_that_cannot_end_by_themselves_are_ended_by_the_next_up(product: Product) -> None:
    (stuck,) = product.pids_of("api")
    os.kill(stuck, signal.SIGSTOP)

    product.kill_supervisor()
    product.start()

    assert not alive(stuck)


def test_a_second_signal_ends_everything_at_once(product: Product) -> None:
    pids = processes_of(product)
    (worker,) = product.pids_of("worker")
    os.kill(worker, signal.SIGSTOP)  # it would hold up the drain
    supervisor = product.pids_of("supervisor")[0]

    with later(0.5, lambda: os.kill(supervisor, signal.SIGINT)):
        began = time.monotonic()
        code = product.stop()

    assert code == 1
    assert time.monotonic() - began < 3.0
    assert eventually(lambda: not any(alive(pid) for pid in pids), 5.0)
    product.start()


def answers_me(product: Product) -> bool:
    try:
        return product.request("GET", "/api/v1/users/me")[0] == 200
    except OSError:
        return False


@contextlib.contextmanager
def later(after_s: float, act: Callable[[], None]) -> Generator[None, None, None]:
    timer = threading.Timer(after_s, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_a_stop_under_load_answers_every_request(product: Product) -> None:
    lost: list[str] = []
    answered: list[int] = []
    headers = {"Authorization": f"Bearer {product.token()}", "Content-Type": "application/json"}

    def hammer(client: int) -> None:
        number = 0
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=30)
            try:
                connection.connect()
            except OSError:
                return  # refused: nothing was asked
            try:
                while True:
                    number += 1
                    reading = {"sensor_id": f"drain-{client}", "sensor_type": "power", "value": number, "seq": number}
                    body = json.dumps({**reading, "location": {"lat": 41.0, "lon": 19.0}})
                    connection.request("POST", "/api/v1/ingest/sensor", body, headers)
                    answer = connection.getresponse()
                    answer.read()
                    answered.append(answer.status)
                    if answer.getheader("connection") == "close":
                        break
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                return
            finally:
                connection.close()

    clients = [threading.Thread(target=hammer, args=(number,)) for number in range(16)]
    for client in clients:
        client.start()
    assert eventually(lambda: len(answered) > 100, GONE_S)
    code = product.stop()
    for client in clients:
        client.join(30)

    assert code == 0
    assert lost == []
    assert set(answered) == {201}
    product.start()
    stored = product.rows("SELECT count(*) FROM sensor_data WHERE sensor_id LIKE 'drain-%%'")
    assert stored == [(len(answered),)]
