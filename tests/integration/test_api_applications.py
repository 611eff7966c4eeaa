"""Applications' routes: found by dotted name, served by the API at their own paths, behind its key."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from callboard.catalog import app as catalog_app
from callboard.catalog.loading import ModuleFailed
from callboard.errors import Invalid, InvalidDeclaration, InvalidSetting
from callboard.host import Host
from callboard.metrics import metrics
from callboard_api.schemas.body import SINGLE_BYTES
from tests.support.api_server import RunningApi, running_api
from tests.support.waiting import wait_until

KEY = "cb_" + "k" * 30
Install = Callable[..., None]

ROUTES = """
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from callboard import inspector
from callboard.host import Host
from callboard.submit import Submission, submit


async def order(request):
    host = Host.of(request.scope)
    made = Submission(name="add", queue="sums", payload=await request.json(), owner=host.owner)
    [accepted] = await host.run(submit(host.keys, [made], host.limits))
    if accepted.problem is not None:
        raise accepted.problem
    return JSONResponse({"task": accepted.id}, 202)


async def status(request):
    host = Host.of(request.scope)
    task = await host.run(inspector.get(host.keys, request.path_params["id"]))
    if task is None:
        raise HTTPException(404, "There is no such order.")
    return JSONResponse({"state": task.state})


async def wall(request):
    return JSONResponse({"bytes": len(await request.body())})


def broken(request):
    raise RuntimeError("a secret")


def teapot(request):
    raise HTTPException(418, "short and stout")


ROUTES = [
    Route("/api/orders", order, methods=["POST"]),
    Route("/api/orders/{id}", status),
    Route("/api/wall", wall, methods=["POST"]),
    Mount("/api/shop", routes=[Route("/broken", broken), Route("/teapot", teapot)]),
]
"""


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    """Installs an application: `install("shop", "shop_routes:ROUTES", shop_routes="…")`."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(catalog_app, "entry_points", lambda group: points)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    written: set[str] = set()

    def write(name: str, routes: str, **modules: str) -> None:
        app = f"from callboard import App\napp = App({name!r}, routes={routes!r})\n"
        for module, text in {f"{name}_app": app, **modules}.items():
            (tmp_path / f"{module}.py").write_text(text)
            written.add(module)
        points.append(EntryPoint(name, f"{name}_app:app", "callboard.apps"))

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def shop(install: Install, redis_url: str) -> Iterator[RunningApi]:
    install("shop", "shop_routes:ROUTES", shop_routes=ROUTES)
    with running_api(redis_url, ADMIN_KEY=KEY) as api:
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        yield api


def test_an_applications_routes_are_served_beside_the_platforms(shop: RunningApi) -> None:
    answer = shop.http.post("/api/orders", json={"a": 2})
    assert answer.status_code == 202
    assert answer.headers["x-request-id"]
    task_id = answer.json()["task"]
    assert shop.http.get(f"/api/orders/{task_id}").json() == {"state": "queued"}
    task = shop.task(task_id)
    assert (task["payload"], task["owner"]) == ({"a": 2}, "default")
    labels = {"route": "/api/orders/{id}", "method": "GET", "status": "200"}
    assert metrics.registry.get_sample_value("callboard_http_requests_total", labels)


def test_they_need_the_key_as_everything_does(shop: RunningApi) -> None:
    del shop.http.headers["Authorization"]
    for answer in (shop.http.post("/api/orders", json={}), shop.http.get("/api/shop/teapot")):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthorized"


def test_what_goes_wrong_there_is_a_problem(shop: RunningApi) -> None:
    missing = shop.http.get("/api/orders/sums_nothing")
    assert (missing.status_code, missing.json()["detail"]) == (404, "There is no such order.")
    method = shop.http.delete("/api/orders")
    assert (method.status_code, method.json()["code"]) == (405, "method-not-allowed")
    assert method.headers["allow"] == "POST"
    broken = shop.http.get("/api/shop/broken")
    assert (broken.status_code, broken.json()["code"]) == (500, "internal")
    assert "secret" not in broken.text
    teapot = shop.http.get("/api/shop/teapot")
    assert (teapot.status_code, teapot.text) == (418, "short and stout")
    nowhere = shop.http.get("/api/shop/nowhere")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_a_body_is_bounded_there_too(shop: RunningApi, announced: bool) -> None:
    def body(size: int) -> bytes | Iterator[bytes]:
        return b"x" * size if announced else (b"x" * 65_536 for _ in range(size // 65_536))

    fits = shop.http.post("/api/wall", content=body(SINGLE_BYTES))
    assert (fits.status_code, fits.json()) == (200, {"bytes": SINGLE_BYTES})
    refused = shop.http.post("/api/wall", content=body(SINGLE_BYTES + 65_536))
    assert (refused.status_code, refused.json()["code"]) == (413, "payload-too-large")
    assert refused.headers["content-type"] == "application/problem+json"
    assert "1,048,576 bytes" in refused.json()["detail"]


def test_a_client_that_hangs_up_there_is_no_fault_of_the_api(
    shop: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"route": "/api/wall", "method": "POST", "status": "499"}
    head = f"POST /api/wall HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection((shop.http.base_url.host, shop.http.base_url.port or 80)) as client:
        client.sendall(f"{head}Content-Length: 9\r\n\r\nhalf".encode())
    wait_until(lambda: metrics.registry.get_sample_value("callboard_http_requests_total", labels))
    assert "failed" not in caplog.text


def test_an_application_that_is_off_is_not_imported(install: Install, redis_url: str) -> None:
    install("shop", "shop_routes:ROUTES", shop_routes="raise RuntimeError('imported')")
    install("quiet", "quiet_routes:ROUTES", quiet_routes="ROUTES = []")
    with running_api(redis_url, APPS="quiet") as api:
        assert api.http.get("/api/orders/1").status_code == 404
    with pytest.raises(InvalidSetting, match=r"no application is named 'shup'\. Did you mean 'shop'"):
        RunningApi(redis_url, "t", APPS="shup")


BAD = {
    "no such module": ("missing_routes:ROUTES", "", ModuleFailed, "no module is named 'missing_routes'"),
    "no such attribute": (
        "odd:ROUTS",
        "ROUTES = []",
        ModuleFailed,
        "odd has no 'ROUTS', which 'odd:ROUTS' names",
    ),
    "it raises": ("odd:ROUTES", "1 / 0", ModuleFailed, "ZeroDivisionError"),
    "no list": (
        "odd:ROUTES",
        "ROUTES = 7",
        InvalidDeclaration,
        "must be a list of Starlette's routes; got 7",
    ),
    "no routes": (
        "odd:ROUTES",
        "ROUTES = ['/x']",
        InvalidDeclaration,
        "must be a list of Starlette's routes",
    ),
    "the platform's path": (
        "odd:ROUTES",
        "from starlette.routing import Route\nROUTES = [Route('/v1/tasks', print)]",
        InvalidDeclaration,
        "'/v1/tasks' is the platform's own",
    ),
    "everything": (
        "odd:ROUTES",
        "from starlette.routing import Mount\nROUTES = [Mount('/', routes=[])]",
        InvalidDeclaration,
        "each needs a path of its own",
    ),
}


@pytest.mark.parametrize(("routes", "text", "kind", "told"), BAD.values(), ids=BAD)
def test_bad_routes_stop_the_start_and_name_the_application(
    install: Install, redis_url: str, routes: str, text: str, kind: type[Exception], told: str
) -> None:
    install("shop", routes, odd=text)
    with pytest.raises(kind) as refused:
        RunningApi(redis_url, "t")
    assert told in str(refused.value)
    assert "application 'shop'" in str(refused.value)


def test_two_applications_cannot_share_a_path(install: Install, redis_url: str) -> None:
    install("shop", "shop_routes:ROUTES", shop_routes=ROUTES)
    install("stall", "stall_routes:ROUTES", stall_routes=ROUTES)
    with pytest.raises(InvalidDeclaration, match="'shop' and 'stall' both serve the path '/api/orders'"):
        RunningApi(redis_url, "t")


def test_the_process_of_an_installed_application_says_so_and_exits_with_2(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "shop_app.py").write_text(
        "from callboard import App\napp = App('shop', routes='missing:ROUTES')\n"
    )
    installed = tmp_path / "shop-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[callboard.apps]\nshop = shop_app:app\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    env = {**os.environ, "CALLBOARD_REDIS_URL": redis_url, "PYTHONPATH": path}
    command = [sys.executable, "-m", "callboard_api"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "The routes of application 'shop' cannot be loaded." in ended.stderr
    assert "no module is named 'missing'" in ended.stderr


def test_elsewhere_a_route_has_no_host() -> None:
    with pytest.raises(Invalid, match="not served by Callboard's API"):
        Host.of({"type": "http"})
