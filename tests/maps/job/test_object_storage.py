"""The blocks of a map lie in object storage as well as in a folder: a real server of S3's protocol, through GDAL."""

import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

from tests.maps.job.processes import run, start, wait_for
from tests.maps.job.scenes import cut, made, options, read, roads, scene
from tests.maps.job.test_engines import free_port

BLOCKS = "/vsis3/roads/map"


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """An empty bucket `roads`; the server's address."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        wait_for(lambda: "Running on" in (tmp_path / "server.log").read_text(), "the server")
        put(address, "")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_S3_ENDPOINT": address, "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield address
    finally:
        server.kill()
        server.wait()
        log.close()


def put(address, name, data=None):
    head = {"Authorization": "AWS a:b", "Content-Type": "image/tiff"}
    urlopen(Request(f"http://{address}/roads{name}", data=data, method="PUT", headers=head)).close()


def objects(address):
    with urlopen(Request(f"http://{address}/roads?list-type=2", headers={"Authorization": "AWS a:b"})) as answer:
        return [part.partition("</Key>")[0] for part in answer.read().decode().split("<Key>")[1:]]


def test_a_map_whose_blocks_lie_in_object_storage_is_interrupted_and_finished(storage, tmp_path):
    model = roads(tmp_path / "roads.onnx")
    cut(tmp_path / "parts", scene((200, 300)))
    made(tmp_path / "local", model, [tmp_path / "parts"], options(windows=2))
    folder = tmp_path / "map"
    args = [model, tmp_path / "parts", "-o", folder, "--windows", 2, "--blocks", BLOCKS]
    process = start(*args, "--workers", 1)
    wait_for(lambda: len(objects(storage)) >= 2, "two blocks")
    process.kill()
    process.communicate()
    before = len(objects(storage))
    run(*args)
    names = objects(storage)
    assert before < len(names) == 2 * 15
    assert sorted(names) == sorted(f"map/{p.name}" for p in (tmp_path / "local" / "blocks").iterdir())
    assert (read(folder / "roads.tif")[0] == read(tmp_path / "local" / "roads.tif")[0]).all()
    assert (folder / "roads.gpkg").exists()
    assert not (folder / "blocks").exists()


def test_rasters_may_lie_there_beside_those_of_the_disk(storage, tmp_path):
    model, parts = roads(tmp_path / "roads.onnx"), cut(tmp_path / "parts", scene((200, 300)))
    made(tmp_path / "local", model, [parts], options(windows=3))
    far = sorted(parts.iterdir())[1]
    put(storage, f"/{far.name}", far.read_bytes())
    near = [path for path in sorted(parts.iterdir()) if path != far]
    run(model, near[0], f"s3://roads/{far.name}", *near[1:], "-o", tmp_path / "map", "--windows", 3)
    assert (read(tmp_path / "map" / "roads.tif")[0] == read(tmp_path / "local" / "roads.tif")[0]).all()
    assert "Not in the picture: 1 raster." in (tmp_path / "map" / "report.html").read_text()
