"""ShortVideo (Tsinghua): exposures of short videos, with titles, tags, categories, English texts and the videos.

The download is behind HTTP basic authentication; user and password stand in the publisher's README. They are taken
from ``source=http://USER:PASSWORD@HOST/…``, else from the environment variables ``REELSTORE_SHORTVIDEO_USER`` and
``REELSTORE_SHORTVIDEO_PASSWORD``, else from ``~/.netrc`` (``machine HOST login USER password PASSWORD``), and are
neither logged nor stored (:mod:`datasets_spec.login`). The first two go to ``source``, or else to ``base_url``, and to
no mirror. The publisher allows three connections.

Two defects of the published data. For part of the videos the pid of the table is not that of the file, but shifted by
one or wrong: the table's duration is compared with the file's, and files that do not fit are not used. In the small
version of the table all pids are hashes, to which no file belongs at all. What the comparison gave is logged, and is in
quarantine as ``duration_check`` (one row for all) and ``duration_mismatch`` (one for each file that does not fit).
"""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import polars as pl

from datasets_spec.download import DownloadFailure, Retry, Transfer
from datasets_spec.durations import DurationCheck, check_durations
from datasets_spec.errors import ConfigConflictError, DownloadError, MissingSourceError
from datasets_spec.login import Login, SiteClient, login_from_environment, split_login
from datasets_spec.media_files import MediaPlace, add_media, source_url
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.shortvideo_format import parse_interactions
from datasets_spec.shortvideo_texts import TEXTS, add_texts, fetch_texts
from datasets_spec.spec import (
    DatasetSpec,
    Licence,
    MediaKind,
    PrepareConfig,
    Progress,
    PublishedCounts,
    RemoteFile,
)

_log = logging.getLogger(__name__)

#: The published name (sic) and its older spelling; then those of the small version, and the right spelling.
TABLES = (
    *("interaciton_filtered.csv", "interaciton.csv"),
    *("interaction.csv", "interaction_sampled.csv", "interaction_filtered.csv"),
)
CATEGORIES = ("category_cn_en.csv", "categories_cn_en.csv")
VIDEO = "raw_file/{id}.mp4"
VIDEOS = 153_561  # their files are named 1.mp4 to 153561.mp4
LOGIN = "REELSTORE_SHORTVIDEO"
CONNECTIONS = 3
#: The site answers HTTP 502 for a while now and then: half a minute of patience for each file.
TRANSFER = Transfer(CONNECTIONS, CONNECTIONS, Retry(attempts=7))

_README = "https://github.com/tsinghua-fib-lab/ShortVideo_dataset"
_REMEDY = (
    f"Set {LOGIN}_USER and {LOGIN}_PASSWORD to the login that stands in the publisher's README ({_README}), or put "
    "`machine HOST login USER password PASSWORD` into ~/.netrc, or pass source=http://USER:PASSWORD@HOST/…"
)
_BASE_URL = "http://fi.ee.tsinghua.edu.cn/datasets/short-video-dataset"
_PAPER = "MealRec (arXiv 2603.01926), Table 1"

_TITLES = {
    "shortvideo": "ShortVideo: 10,000 users, 153,561 short videos of one week, with watch times, titles and tags",
    "shortvideo-small": "ShortVideo, 3,460 users drawn at random: near to Shortvideo-small of MealRec",
    "shortvideo-big": "ShortVideo, 7,584 users drawn at random: near to Shortvideo-big of MealRec",
}
_CONFIGS = {
    "shortvideo": PrepareConfig(k_user=4, k_item=4, base_url=_BASE_URL),
    "shortvideo-small": PrepareConfig(k_user=4, k_item=1, sample_users=3_460, base_url=_BASE_URL),
    "shortvideo-big": PrepareConfig(k_user=4, k_item=1, sample_users=7_584, base_url=_BASE_URL),
}
_PUBLISHED = {
    "shortvideo-small": (PublishedCounts(_PAPER, users=3_460, items=84_192, interactions=240_843),),
    "shortvideo-big": (PublishedCounts(_PAPER, users=7_584, items=122_845, interactions=533_381),),
}
NAMES = tuple(_TITLES)


def match(name: str) -> bool:
    """Whether this module serves `name`."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The dataset, or a recipe over its files."""
    return DatasetSpec(
        name=name,
        title=_TITLES[name],
        licence=Licence(
            name="none stated",
            url=_README,
            note="No licence is published: ask the authors before any use beyond research.",
        ),
        access=(
            f"Behind HTTP basic authentication. {_REMEDY}. Or pass source=FOLDER with one of {', '.join(TABLES)}, and "
            f"as far as you have them {CATEGORIES[0]}, the videos as {VIDEO.format(id='PID')} and the English texts "
            f"as {' and '.join(f'{kind}/PID.txt' for kind in TEXTS)}. All videos together are about 3.2 TB: use "
            "limit=, or media= for the table and the texts that are there. The pid of a part of the videos is wrong "
            "in the table."
        ),
        files=tuple(RemoteFile(path, path, required=False) for path in (*TABLES, *CATEGORIES)),
        media=("video",),
        config=_CONFIGS[name],
        published=_PUBLISHED.get(name, ()),
        raw=None if name == "shortvideo" else "shortvideo",
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Make one of the interaction tables available, and the list of categories where there is one.

    Raises:
        MissingSourceError: A local folder holds no table.
        DownloadError: No table could be fetched, or the login was refused.
        ConfigConflictError: base_url or a mirror carries a password.
    """
    _refuse_passwords(config)
    address, login = _login(source)
    _forget_other_source(spec, raw_dir, address)
    with _client(spec, config, raw_dir, address, login) as site:
        failures = _acquire_one_of(spec, config, raw_dir, TABLES, address=address, site=site, progress=progress)
        if failures:
            folder = raw_root(raw_dir)
            details = "\n".join(f"{failure.file.path}: {failure.detail}" for failure in failures)
            message = f"{spec.name}: expected one of {', '.join(TABLES)} in {folder}. {spec.access}\n{details}"
            raise MissingSourceError(message) if folder != raw_dir else DownloadError(message)
        _acquire_one_of(spec, config, raw_dir, CATEGORIES, address=address, site=site, progress=progress)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:  # noqa: ARG001 (signature of a source)
    """Read the table, the categories and the English texts that are there.

    Items that have a video in a local folder, or may have one at the address, are marked in ``video_url``.
    """
    folder = raw_root(raw_dir)
    path = _first_of(folder, TABLES)
    if path is None:
        raise MissingSourceError(f"{spec.name}: expected one of {', '.join(TABLES)} in {folder}. {spec.access}")
    tables = parse_interactions(path, _first_of(folder, CATEGORIES))
    items = add_texts(tables.items, _media_folder(raw_dir))
    videos = [VIDEO.format(id=pid) for pid in items["item_id"]]
    known = [video if folder == raw_dir or (folder / video).is_file() else None for video in videos]
    items = items.with_columns(pl.Series("video_url", known, dtype=pl.String))
    return replace(tables, items=items, notes=(*tables.notes, *_notes(items)))


def acquire_media(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Download the videos and English texts of these items, three at a time, and drop those of other items.

    Raises:
        DownloadError: Nothing could be fetched, or the login was refused.
    """
    address, login = _login(source)
    url = source_url(raw_dir, address)
    local = raw_root(raw_dir) != raw_dir
    kinds: tuple[MediaKind, ...] = tuple(kind for kind in spec.media_for(config) if kind in spec.media)
    with _client(spec, config, raw_dir, address, login) as site:
        place = MediaPlace(
            patterns={"video": VIDEO},
            kinds=kinds,
            folder=_media_folder(raw_dir),
            bases=() if local else spec.bases(config) if url is None else (url,),
            client=site.client,
            transfer=TRANSFER,
        )
        filled, bad_rows = add_media(items.drop("video_url", strict=False), place, progress=progress)
        bad_rows += fetch_texts(filled["item_id"].to_list(), place, progress=progress)
    return _drop_mismatches(add_texts(filled, place.folder), bad_rows)


def _login(source: str | None) -> tuple[str | None, Login | None]:
    address, login = split_login(source)
    return address, login or login_from_environment(LOGIN)


def _client(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, address: str | None, login: Login | None
) -> SiteClient:
    """A client that knows the login for the address in force: of mirrors only those in ``~/.netrc``."""
    site = source_url(raw_dir, address) or next(iter(spec.bases(config)), None)
    return SiteClient(site, login, remedy=_REMEDY)


def _refuse_passwords(config: PrepareConfig) -> None:
    """Base addresses are written to the manifest of the prepared dataset."""
    for base in (config.base_url, *config.mirrors):
        bare, login = split_login(base)
        if login is not None:
            raise ConfigConflictError(
                f"base_url and mirrors are recorded, so they must not carry a password (at {bare}): set {LOGIN}_USER "
                f"and {LOGIN}_PASSWORD, or put it into ~/.netrc, or pass it in source="
            )


def _forget_other_source(spec: DatasetSpec, raw_dir: Path, address: str | None) -> None:
    """Remove tables that came from another address."""
    url = source_url(raw_dir, address)
    if address is not None and url is not None and url != source_url(raw_dir, None):
        for file in spec.files:
            (raw_dir / file.path).unlink(missing_ok=True)


def _acquire_one_of(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    paths: tuple[str, ...],
    *,
    address: str | None,
    site: SiteClient,
    progress: Progress | None,
) -> list[DownloadFailure]:
    """Try files in order until one is there; what failed before, if none is."""
    files = [file for file in spec.files if file.path in paths]
    files.sort(key=lambda file: not (raw_dir / file.path).is_file())  # what is there needs no network
    failures: list[DownloadFailure] = []
    for file in files:
        one = replace(spec, files=(file,))
        found = acquire_files(one, config, raw_dir, source=address, client=site.client, progress=progress)
        if not found:
            return []
        failures += found
    return failures


def _first_of(folder: Path, paths: tuple[str, ...]) -> Path | None:
    return next((folder / path for path in paths if (folder / path).is_file()), None)


def _media_folder(raw_dir: Path) -> Path:
    """Where videos and texts lie: in the local source; else here, those of an own address in a folder of their own.

    Nothing could tell the files of one address from those of another.
    """
    url = source_url(raw_dir, None)
    if url is None:
        return raw_root(raw_dir)
    return raw_dir / f"from-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _notes(items: pl.DataFrame) -> list[str]:
    """What is known before any video is seen of how far the files belong to the table."""
    told = [f"{items[kind].count()} have {kind}" for kind in TEXTS]
    notes = [
        f"titles are Chinese; of {items.height} items {', '.join(told)}, by the name of the file: for features of "
        f"English texts pass text={TEXTS[0]} or text={TEXTS[1]}"
    ]
    number = pl.col("item_id").cast(pl.Int64, strict=False)
    hashed = items.filter(~number.is_between(1, VIDEOS).fill_null(value=False)).height
    if hashed:
        notes.append(
            f"{hashed} of {items.height} pids lie outside 1..{VIDEOS}, the names of the published files: they are "
            "hashes, to which no video and no English text belongs"
        )
    return notes


def _drop_mismatches(items: pl.DataFrame, bad_rows: list[BadRow]) -> tuple[pl.DataFrame, list[BadRow]]:
    """Null the videos and texts of items whose duration in the table is not that of the file, with a row for each."""
    if "duration" not in items.columns:
        _log.warning("the table has no duration: whether its pids are those of the videos could not be checked")
        return items, bad_rows
    check = check_durations(items)
    _log.log(logging.WARNING if check.mismatches else logging.INFO, "%s", check)
    wrong = pl.col("item_id").is_in(list(check.mismatches))
    files = [pl.when(~wrong).then(pl.col(column)).alias(column) for column in ("video", *TEXTS)]
    return items.with_columns(files), [*bad_rows, *_mismatch_rows(check)]


def _mismatch_rows(check: DurationCheck) -> list[BadRow]:
    if not check.mismatches:
        return []
    summary = BadRow(VIDEO.format(id="*"), None, None, "duration_check", str(check))
    return [
        summary,
        *(
            BadRow(VIDEO.format(id=item_id), None, item_id, "duration_mismatch", str(wrong))
            for item_id, wrong in check.mismatches.items()
        ),
    ]
