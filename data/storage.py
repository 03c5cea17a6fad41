"""Files at URLs, through fsspec: what there is, and its bytes; every failure is a DataError with the URL.

Credentials and endpoints come from where the storage's own tools take them: for s3:// from the AWS
environment variables and ~/.aws.
"""

import io
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from data.packages import package_missing
from seedbed.errors import DataError

READ_BYTES = 256 * 1024

# What is fetched ahead of a sequential reader, and so what an open file holds in memory.
AHEAD_BYTES = 8 * 1024 * 1024

# What a storage may say of a file's version. A listing can spell times otherwise than a look at the file.
_HASHES = ("ETag", "etag", "checksum", "md5Hash", "sha256")
_TIMES = ("mtime", "LastModified", "created")

# The packages that storages are made of, and whose exceptions need not be OSErrors.
STORAGE_PACKAGES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "httpx",
     "huggingface_hub", "requests", "s3fs", "urllib3"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """A file at an URL; `relative` is its path inside the folder that was listed."""

    relative: str
    url: str
    size: int
    version: str


def is_url(path: str) -> bool:
    """Whether `path` is an URL such as s3://bucket/key, and not a local path."""
    return "://" in path


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url`, and the path that it knows it by."""
    try:
        import fsspec
    except ImportError as error:
        raise package_missing(f"reading {url}", "fsspec", "remote", "copy it to a local folder") from error
    return fsspec.core.url_to_fs(url)


def list_url(url: str) -> list[RemoteEntry] | RemoteEntry:
    """All files below `url` in no order, or the one file that it is; DataError when there is nothing.

    An http(s) URL is a folder when it ends with "/", and is then listed by the links of its page.
    """
    with storage_errors(url):
        fs, root = filesystem(url)
        fs.invalidate_cache()
        is_web = url.startswith(("http://", "https://"))
        if not url.endswith("/") if is_web else fs.isfile(root):
            return _entry(fs, root, root.rpartition("/")[2], fs.info(root))
        folder = root.rstrip("/") + "/"
        found = fs.find(folder, detail=True)
        if not found:
            raise FileNotFoundError
        files = [path for path, about in found.items() if about["type"] == "file" and path[-1] != "/"]
        return [
            _entry(fs, path, path.removeprefix(folder), found[path] if _tells(found[path]) else fs.info(path))
            for path in files
        ]


def open_url(url: str, version: str) -> io.BufferedReader:
    """The file at `url`, to be read as a stream; DataError when it is not of `version` any more.

    Any other failure is the storage's own exception: use it inside `storage_errors`.
    """
    fs, path = filesystem(url)
    now = _version_of(fs.info(path))
    if now != version:
        raise DataError(
            f"{url} changed while the dataset was built (from version {version} to {now})",
            "build again when nothing writes to the source",
        )
    return io.BufferedReader(fs.open(path, "rb", block_size=AHEAD_BYTES, cache_type="readahead"), READ_BYTES)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Whatever the storage of `url` raises becomes a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url} does not exist{_said(error)}", "check the bucket and the path") from error
    except PermissionError as error:
        raise DataError(f"no permission for {url}{_said(error)}", "check the credentials") from error
    except ImportError as error:
        fix = "pip install 'seedbed[remote]', or the package that it names"
        raise DataError(f"cannot open {url}{_said(error)}", fix) from error
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise DataError(
            f"cannot read {url}: {type(error).__name__}{_said(error)}",
            "check the network, the endpoint (AWS_ENDPOINT_URL for s3://) and the credentials",
        ) from error


def is_storage_error(error: Exception) -> bool:
    """Whether a storage, or the way to it, raised `error`."""
    return isinstance(error, OSError) or came_from(error, STORAGE_PACKAGES)


def came_from(error: Exception, packages: Collection[str]) -> bool:
    """Whether `error` is of one of `packages`, or passed through their code: so it is no mistake of ours."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.partition(".")[0] in packages for name in (type(error).__module__, *frames))


def _tells(listed: dict[str, Any]) -> bool:
    """Whether a row of a listing says all that there is to know."""
    return listed.get("size") is not None and any(listed.get(key) for key in _HASHES)


def _version_of(about: dict[str, Any]) -> str:
    return next((str(about[key]) for key in (*_HASHES, *_TIMES) if about.get(key)), "")


def _entry(fs: Any, path: str, relative: str, about: dict[str, Any]) -> RemoteEntry:
    url = fs.unstrip_protocol(path)
    if about.get("size") is None:
        raise DataError(f"{url} does not tell its size", "copy it to a local folder first")
    return RemoteEntry(relative, url, int(about["size"]), _version_of(about))


def _said(error: Exception) -> str:
    return f": {error}" if str(error) else ""
