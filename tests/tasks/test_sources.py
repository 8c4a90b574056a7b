import gzip
import hashlib
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks import sources

CONTENT = b"date,a\n2020-01-01,1\n2020-01-02,2\n"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No data anywhere: an own cache folder and no $RUNNER_DATA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RUNNER_DATA", raising=False)
    return tmp_path


@pytest.fixture
def origin(tmp_path):
    """A folder and the address under which a local server shows it."""
    folder = tmp_path / "origin"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def config(**changes):
    source = {"files": ["toy_xyz/toy_xyz.csv", "toy_xyz.csv"], "urls": [], "sha256": SHA}
    source.update(changes.pop("source", {}))
    return {"name": "toy", "source": source, **changes}


def write(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["toy_xyz/toy_xyz.csv", "toy_xyz.csv", "toy_xyz/toy_xyz.csv.gz"])
def test_a_file_is_found_under_the_root_in_every_layout(tmp_path, name):
    content = gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT
    path = write(tmp_path / "mine" / name, content)
    assert sources.locate(config(root=str(tmp_path / "mine"))) == path


def test_the_environment_variable_names_a_root(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_DATA", str(tmp_path / "env"))
    path = write(tmp_path / "env" / "toy_xyz.csv")
    assert sources.find(config()) == path


def test_a_given_root_goes_before_the_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_DATA", str(tmp_path / "env"))
    write(tmp_path / "env" / "toy_xyz.csv")
    mine = write(tmp_path / "mine" / "toy_xyz.csv")
    assert sources.find(config(root=str(tmp_path / "mine"))) == mine


def test_a_package_is_found_without_being_imported(tmp_path, monkeypatch):
    write(tmp_path / "packages" / "toy_pkg" / "__init__.py", b"raise RuntimeError('imported')")
    path = write(tmp_path / "packages" / "toy_pkg" / "data" / "w.csv")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    assert sources.locate(config(source={"package": "toy_pkg", "package_file": "data/w.csv"})) == path


def test_identity_is_that_of_the_unpacked_content(tmp_path):
    write(tmp_path / "toy_xyz.csv.gz", gzip.compress(CONTENT))
    assert sources.identity(config(root=str(tmp_path))) == SHA


def test_identity_covers_the_other_files_of_the_set(tmp_path):
    (tmp_path / "other.csv").write_text("1")
    beside = config(root=str(tmp_path), source={"beside": ["other*"]})
    (tmp_path / "toy_xyz.csv").write_text("0")
    first = sources.identity(beside)
    (tmp_path / "other.csv").write_text("2")
    assert first != sources.identity(beside) != sources.identity(config(root=str(tmp_path)))


def test_identity_of_an_absent_file_is_none_and_downloads_nothing(origin):
    folder, address = origin
    write(folder / "toy.csv")
    assert sources.identity(config(source={"urls": [f"{address}/toy.csv"]})) is None
    assert not sources.cache_folder().exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_download_is_unpacked_verified_and_kept_in_the_cache(origin, packed):
    folder, address = origin
    write(folder / "toy.csv", gzip.compress(CONTENT) if packed else CONTENT)
    data = config(source={"urls": [f"{address}/toy.csv"]})
    path = sources.locate(data)
    assert path == sources.cache_folder() / "toy_xyz/toy_xyz.csv"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["toy_xyz.csv"]
    assert sources.find(data) == path


def test_the_next_origin_is_tried_when_the_first_has_no_such_file(origin):
    folder, address = origin
    write(folder / "b.csv")
    assert sources.locate(config(source={"urls": [f"{address}/a.csv", f"{address}/b.csv"]})).read_bytes() == CONTENT


def test_a_wrong_hash_names_both_and_leaves_nothing_behind(origin):
    folder, address = origin
    write(folder / "toy.csv", b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=f"{found}, expected {SHA}"):
        sources.locate(config(source={"urls": [f"{address}/toy.csv"]}))
    assert not list(sources.cache_folder().rglob("*.*"))


def test_one_of_several_accepted_hashes_is_enough(origin):
    folder, address = origin
    write(folder / "toy.csv")
    assert sources.locate(config(source={"urls": [f"{address}/toy.csv"], "sha256": ["0" * 64, SHA]})).is_file()


def test_a_download_without_a_known_hash_warns_with_the_computed_one(origin, caplog):
    folder, address = origin
    write(folder / "toy.csv")
    sources.locate(config(source={"urls": [f"{address}/toy.csv"], "sha256": None}))
    assert SHA in caplog.text and "unverified" in caplog.text


def test_a_broken_connection_leaves_nothing_behind():
    class Short(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Short)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(FileNotFoundError, match="toy"):
        sources.locate(config(source={"urls": [f"http://127.0.0.1:{server.server_port}/toy.csv"]}))
    server.shutdown()
    server.server_close()
    assert not list(sources.cache_folder().rglob("*.*"))


def test_not_found_names_the_places_the_origin_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_DATA", str(tmp_path / "env"))
    with pytest.raises(FileNotFoundError) as error:
        sources.locate(config(source={"urls": ["http://127.0.0.1:9/toy.csv"]}))
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "'toy'",
        str(tmp_path / "env"),
        str(sources.cache_folder()),
        "http://127.0.0.1:9/toy.csv",
        "curl -fL -o",
    ):
        assert part in message


def test_download_false_never_fetches(origin):
    folder, address = origin
    write(folder / "toy.csv")
    with pytest.raises(FileNotFoundError, match=r"data.download=false"):
        sources.locate(config(download=False, source={"urls": [f"{address}/toy.csv"]}))


def test_a_missing_package_is_named_with_the_install_command():
    with pytest.raises(FileNotFoundError, match="pip install no_such_pkg"):
        sources.locate(config(source={"package": "no_such_pkg", "package_file": "x.csv"}))


def test_a_root_that_is_not_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        sources.locate(config(root=str(tmp_path / "typo")))


def test_a_mistyped_path_gets_the_nearest_names(tmp_path):
    write(tmp_path / "sales.csv")
    with pytest.raises(FileNotFoundError, match=r"did you mean sales\.csv"):
        sources.locate(config(path=str(tmp_path / "sale.csv")))


def test_a_folder_instead_of_a_file_is_refused_with_its_files(tmp_path):
    write(tmp_path / "folder" / "sales.csv")
    with pytest.raises(ValueError, match=r"is a folder, not a file.*sales\.csv"):
        sources.locate(config(path=str(tmp_path / "folder")))


def test_a_set_without_files_asks_for_the_users_path():
    with pytest.raises(ValueError, match=r"data\.path="):
        sources.locate({"name": "csv", "source": {"files": []}})


def test_a_different_file_than_the_published_one_warns(tmp_path, caplog):
    write(tmp_path / "toy_xyz.csv", b"date,a\n")
    sources.locate(config(root=str(tmp_path)))
    assert "not the published file" in caplog.text


def test_a_damaged_gzip_file_is_named(tmp_path):
    path = write(tmp_path / "x.csv.gz", gzip.compress(CONTENT)[:-6])
    with pytest.raises(ValueError, match="damaged gzip"):
        sources.read_bytes(path)


def test_importing_sources_imports_nothing_heavy():
    code = (
        "import sys, tasks.sources; print([m for m in ('torch', 'pandas', 'numpy', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
