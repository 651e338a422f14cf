"""Two small worlds: one with everything that tests look at, one that renders in a second."""

import pytest
from path import Path

from datasets.synthetic import Renderer, WorldOptions, list_drives, make_drive_renderer, write_world


@pytest.fixture(scope="session")
def options() -> WorldOptions:
    return WorldOptions(drives=3, frames=9, width=208, height=64, halts=False, dense_depth=True, seed=3)


@pytest.fixture(scope="session")
def tiny_options() -> WorldOptions:
    return WorldOptions(drives=2, frames=3, width=32, height=32, seed=5)


@pytest.fixture(scope="session")
def world(options, tmp_path_factory) -> Path:
    folder = Path(tmp_path_factory.mktemp("synthetic") / "world")
    write_world(folder, options)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_options, tmp_path_factory) -> Path:
    folder = Path(tmp_path_factory.mktemp("synthetic") / "tiny")
    write_world(folder, tiny_options)
    return folder


@pytest.fixture(scope="session")
def varied_options() -> WorldOptions:
    return WorldOptions(drives=4, frames=9, width=208, height=64, halts=False, seed=3, varied=True)


@pytest.fixture(scope="session")
def varied_renderers(varied_options) -> list[Renderer]:
    """The renderers of the drives of a varied world where nothing moves but the camera."""
    return [make_drive_renderer(varied_options, drive) for drive in list_drives(varied_options)]


@pytest.fixture(scope="session")
def renderer(options) -> Renderer:
    return make_drive_renderer(options, list_drives(options)[0])
