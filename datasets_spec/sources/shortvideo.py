"""ShortVideo (Tsinghua): exposures of short videos, with titles, tags and the videos themselves.

The download is behind HTTP basic authentication; user and password stand in the publisher's README. They are taken
from ``~/.netrc`` (``machine HOST login USER password PASSWORD``) or from ``source=http://USER:PASSWORD@HOST/…``, and
are neither logged nor stored. The publisher allows three connections.

Defect of the published data: for part of the videos the pid of the table is not that of the file. The table's duration
is therefore compared with the file's; a video that does not fit is not used.
"""

import logging
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import av
import httpx
import polars as pl
from av.error import FFmpegError

from datasets_spec.download import Transfer, default_client
from datasets_spec.errors import ConfigConflictError, DownloadError, MissingSourceError
from datasets_spec.media_files import MediaPlace, add_media, source_url
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.shortvideo_format import parse_interactions
from datasets_spec.spec import DatasetSpec, Licence, MediaKind, PrepareConfig, Progress, RemoteFile

NAMES = ("shortvideo",)

_log = logging.getLogger(__name__)

#: The published name (sic), its older spelling, and the name in the small version.
TABLES = ("interaciton_filtered.csv", "interaciton.csv", "interaction.csv")
VIDEO = "raw_file/{id}.mp4"
CONNECTIONS = 3
DURATION_TOLERANCE = 1.0  # seconds, or 5 % where that is more


def match(name: str) -> bool:
    """Whether this module serves `name`."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The dataset."""
    return DatasetSpec(
        name=name,
        title="ShortVideo: 10,000 users, 153,561 short videos of one week, with watch times, titles and tags",
        licence=Licence(
            name="none stated",
            url="https://github.com/tsinghua-fib-lab/ShortVideo_dataset",
            note="No licence is published: ask the authors before any use beyond research.",
        ),
        access=(
            "Behind HTTP basic authentication: put the login of the publisher's README into ~/.netrc, or pass "
            f"source=FOLDER with one of {', '.join(TABLES)} and the videos as {VIDEO.format(id='PID')}. All videos "
            "together are about 3.2 TB: use limit=, or media= for the table alone. The pid of a part of the videos "
            "is wrong in the table."
        ),
        files=tuple(RemoteFile(table, table, required=False) for table in TABLES),
        media=("video",),
        config=PrepareConfig(k_user=4, k_item=4, base_url="http://fi.ee.tsinghua.edu.cn/datasets/short-video-dataset"),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Make one of the interaction tables available.

    Raises:
        MissingSourceError: A local folder holds none of them.
        DownloadError: None of them could be fetched.
        ConfigConflictError: base_url or a mirror carries a password.
    """
    _refuse_passwords(config)
    address, auth = split_credentials(source)
    details: list[str] = []
    with _client(auth) as client:
        for file in spec.files:
            one = replace(spec, files=(file,))
            failures = acquire_files(one, config, raw_dir, source=address, client=client, progress=progress)
            if not failures:
                return
            details += [f"{failure.file.path}: {failure.detail}" for failure in failures]
    folder = raw_root(raw_dir)
    message = f"{spec.name}: expected one of {', '.join(TABLES)} in {folder}. {spec.access}\n" + "\n".join(details)
    raise MissingSourceError(message) if folder != raw_dir else DownloadError(message)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:  # noqa: ARG001 (signature of a source)
    """Read the interaction table; items that have a video in a local folder are marked in ``video_url``."""
    folder = raw_root(raw_dir)
    path = next((folder / table for table in TABLES if (folder / table).is_file()), None)
    if path is None:
        raise MissingSourceError(f"{spec.name}: expected one of {', '.join(TABLES)} in {folder}. {spec.access}")
    tables = parse_interactions(path)
    videos = [VIDEO.format(id=pid) for pid in tables.items["item_id"]]
    known = [video if folder == raw_dir or (folder / video).is_file() else None for video in videos]
    return replace(tables, items=tables.items.with_columns(pl.Series("video_url", known, dtype=pl.String)))


def acquire_media(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Download the videos of these items, three at a time, and drop those whose duration is another."""
    address, auth = split_credentials(source)
    folder = raw_root(raw_dir)
    url = source_url(raw_dir, address)
    bases = spec.bases(config) if url is None else (url,)
    kinds: tuple[MediaKind, ...] = tuple(kind for kind in spec.media_for(config) if kind in spec.media)
    with _client(auth) as client:
        place = MediaPlace(
            patterns={"video": VIDEO},
            kinds=kinds,
            folder=folder,
            bases=() if folder != raw_dir else bases,
            client=client,
            transfer=Transfer(max_connections=CONNECTIONS, per_host=CONNECTIONS),
        )
        filled, bad_rows = add_media(items.drop("video_url", strict=False), place, progress=progress)
    return _drop_mismatches(filled, bad_rows)


def split_credentials(source: str | None) -> tuple[str | None, httpx.Auth | None]:
    """Take user and password out of an address: (address without them, authentication or None)."""
    parts = urlsplit(source or "")
    if source is None or parts.scheme not in ("http", "https") or parts.username is None:
        return source, None
    host = parts.netloc.rpartition("@")[2]
    auth = httpx.BasicAuth(unquote(parts.username), unquote(parts.password or ""))
    return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment)), auth


def _client(auth: httpx.Auth | None) -> httpx.Client:
    client = default_client()
    if auth is None and (Path.home() / ".netrc").is_file():
        auth = httpx.NetRCAuth(str(Path.home() / ".netrc"))
    if auth is not None:
        client.auth = auth
    return client


def _refuse_passwords(config: PrepareConfig) -> None:
    """Base addresses are written to the manifest of the prepared dataset."""
    for base in (config.base_url, *config.mirrors):
        if base is not None and urlsplit(base).username is not None:
            raise ConfigConflictError(
                f"base_url and mirrors are recorded, so they must not carry a password (at {urlsplit(base).hostname}): "
                "put it into ~/.netrc, or pass it in source="
            )


def _drop_mismatches(items: pl.DataFrame, bad_rows: list[BadRow]) -> tuple[pl.DataFrame, list[BadRow]]:
    """Null the videos whose duration is not that of the table, with a row for each."""
    if "duration" not in items.columns:
        return items, bad_rows
    videos: list[str | None] = []
    mismatches: list[BadRow] = []
    for item_id, video, expected in items.select("item_id", "video", "duration").iter_rows():
        detail = None if video is None or expected is None else _mismatch(video, expected)
        if detail is not None:
            mismatches.append(BadRow(VIDEO.format(id=item_id), None, item_id, "duration_mismatch", detail))
        videos.append(video if detail is None else None)
    if mismatches:
        _log.warning("%d of %d videos have another duration than the table says", len(mismatches), len(videos))
    return items.with_columns(pl.Series("video", videos, dtype=pl.String)), [*bad_rows, *mismatches]


def _mismatch(path: str, expected: float) -> str | None:
    """What is wrong with the length of a video; None when nothing is, or when its header cannot be read."""
    try:
        with av.open(path) as container:
            actual = None if container.duration is None else container.duration / av.time_base
    except FFmpegError:
        return None
    if actual is None or abs(actual - expected) <= max(DURATION_TOLERANCE, 0.05 * expected):
        return None
    return f"the table says {expected:.1f} s, the video lasts {actual:.1f} s: it is another item's"
