from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from callboard.catalog import app as module
from callboard.catalog.app import App, discover
from callboard.catalog.contract import Contract
from callboard.catalog.loading import ModuleFailed
from callboard.errors import InvalidDeclaration, InvalidSetting


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[EntryPoint]]:
    """Entry points as if packages had been installed, and a folder to import from."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "callboard.apps" else [])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield points
    for name in set(sys.modules) - before:
        del sys.modules[name]


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "callboard.apps")


def package(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def test_the_shipped_applications_are_found() -> None:
    found = {app.name: app for app in discover()}
    assert "knowledge" in found
    for app in found.values():
        assert app.contracts
        assert all(contract.name.startswith(f"{app.name}.") for contract in app.contracts)


def test_a_third_partys_application_is_found_and_its_parts_are_loaded_alone(
    install: list[EntryPoint], tmp_path: Path
) -> None:
    package(
        tmp_path,
        "cb_shop",
        "from callboard import App, Contract\n"
        "app = App('shop', contracts=[Contract('shop.send_order')], tasks='cb_shop_tasks',\n"
        "          routes='cb_shop_routes:routes')\n",
    )
    package(tmp_path, "cb_shop_tasks", "LOADED = True\n")
    package(tmp_path, "cb_shop_routes", "routes = ['/orders']\n")
    install.append(point("shop", "cb_shop:app"))
    [app] = discover(["shop"])
    assert app.name == "shop"
    assert "cb_shop_tasks" not in sys.modules
    assert "cb_shop_routes" not in sys.modules
    app.load_tasks()
    assert sys.modules["cb_shop_tasks"].LOADED
    assert app.load_routes() == ["/orders"]
    assert app.load_schedules() is None


def test_choosing_applications(install: list[EntryPoint], tmp_path: Path) -> None:
    package(tmp_path, "cb_two", "from callboard import App\none = App('one')\ntwo = App('two')\n")
    install += [point("two", "cb_two:two"), point("one", "cb_two:one")]
    assert [app.name for app in discover()] == ["one", "two"]
    assert [app.name for app in discover(["two"])] == ["two"]
    assert discover([]) == []
    with pytest.raises(
        InvalidSetting, match=r"CALLBOARD_APPS: .*'onee'\. Did you mean 'one'\? Installed: one, two\."
    ):
        discover(["onee"])


def test_an_application_that_fails_to_import_shows_its_own_traceback(
    install: list[EntryPoint], tmp_path: Path
) -> None:
    package(tmp_path, "cb_bad", "import cb_not_there\n")
    install.append(point("bad", "cb_bad:app"))
    with pytest.raises(
        ModuleFailed, match=r"(?s)Application 'bad' \(cb_bad:app\).*cb_bad\.py.*cb_not_there"
    ) as caught:
        discover()
    assert "importlib" not in str(caught.value)


def test_an_entry_point_must_name_an_app_of_its_name(install: list[EntryPoint], tmp_path: Path) -> None:
    package(tmp_path, "cb_odd", "from callboard import App\napp = App('odd')\nnumber = 3\n")
    install.append(point("odd", "cb_odd:number"))
    with pytest.raises(InvalidDeclaration, match="must name an App"):
        discover()
    install[:] = [point("even", "cb_odd:app")]
    with pytest.raises(InvalidDeclaration, match="must name an App"):
        discover()
    install[:] = [point("odd", "cb_odd:app"), point("odd", "cb_other:app")]
    with pytest.raises(InvalidDeclaration, match="Two applications are named 'odd'"):
        discover()


def test_an_applications_names_are_its_own() -> None:
    with pytest.raises(
        InvalidDeclaration, match=r"test_app\.py:\d+: application 'shop' names its tasks 'shop\.…'"
    ):
        App("shop", contracts=[Contract("send")])
    with pytest.raises(InvalidDeclaration, match=r"Two contracts are named 'shop\.send'"):
        App("shop", contracts=[Contract("shop.send"), Contract("shop.send")])
    with pytest.raises(InvalidDeclaration, match="cannot name an application"):
        App("my shop")


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleFailed, match="textwrap has no 'routes'"):
        App("shop", routes="textwrap:routes").load_routes()
