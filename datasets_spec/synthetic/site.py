"""Writing of the made-up site: the files of MicroLens-50k under their own names, whole or not at all."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_spec.synthetic.damage import Damage, damage_bytes, damage_of, draw_damage
from datasets_spec.synthetic.latent import Catalogue, Walks, draw_catalogue, draw_walks
from datasets_spec.synthetic.titles import draw_titles
from datasets_spec.synthetic.videos import (
    Clip,
    cover_of,
    draw_clips,
    encode_cover,
    encode_sound_only,
    encode_video,
    scene_of,
)

GENERATOR_VERSION = 1
PREFIX = "MicroLens-50k"
MARKER = "site.json"
DAMAGED_SECONDS = 4.0  # a damaged video is at least this long, so that the damage hits more than one frame
USERS, ITEMS, TOPICS = 900, 320, 12

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class SiteReport:
    """What a site holds.

    Attributes:
        folder: Where it lies.
        users: Number of users.
        items: Number of items (those with damaged files included).
        interactions: Number of rows of the pairs file.
        topics: Number of latent topics.
        seed: The seed of every draw.
        damaged: The deliberate defects.
        written: False when the same site was there already.
    """

    folder: Path
    users: int
    items: int
    interactions: int
    topics: int
    seed: int
    damaged: tuple[Damage, ...]
    written: bool


def write_site(
    folder: Path,
    *,
    users: int = USERS,
    items: int = ITEMS,
    topics: int = TOPICS,
    seed: int = 0,
    progress: Progress | None = None,
) -> SiteReport:
    """Write a site in the layout of MicroLens-50k; a second call with the same parameters does nothing.

    The folder appears under its name only when it is complete. Equal parameters give equal tables byte for byte, and
    videos of equal content.

    Args:
        folder: The site's folder. A site of other parameters there is replaced; any other folder is left alone.
        users: Number of users, at least 1.
        items: Number of items, at least 1.
        topics: Number of latent topics, 1..12.
        seed: Seed of every draw.
        progress: Called with ("site", items done, items).

    Returns:
        What the site holds, the damaged items included.

    Raises:
        ValueError: A parameter is out of range, or `folder` holds something else than a site.
    """
    if users < 1 or items < 1:
        raise ValueError(f"a site needs at least one user and one item, got users={users}, items={items}")
    parameters = {
        "generator": GENERATOR_VERSION,
        "users": users,
        "items": items,
        "topics": topics,
        "seed": seed,
    }
    known = _read_marker(folder)
    if known is not None and known.get("parameters") == parameters:
        return _report(folder, known, written=False)
    if known is None and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} exists and is not a site that this generator wrote: name an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        marker = _write_files(building, parameters, progress)
        building.chmod(0o755)
        _move_into_place(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return _report(folder, marker, written=True)


def _write_files(folder: Path, parameters: dict[str, int], progress: Progress | None) -> dict[str, Any]:
    items, seed = parameters["items"], parameters["seed"]
    # One independent stream per concern: a change of one kind of draw leaves the others as they were.
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]
    catalogue = draw_catalogue(items, parameters["topics"], streams[0])
    walks = draw_walks(catalogue, parameters["users"], streams[1])
    titles = draw_titles(catalogue, streams[2])
    clips = draw_clips(items, streams[3])
    damages = draw_damage(items, streams[4])
    for damage in damages:
        if damage.part == "title":
            titles[damage.item - 1] = ""
    _write_tables(folder, walks, titles, streams[2])
    _write_media(folder, catalogue, clips, damages, seed=seed, progress=progress)
    marker = {
        "parameters": parameters,
        "interactions": len(walks.user),
        "damaged": [dataclasses.asdict(damage) for damage in damages],
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    _write_checksums(folder)
    return marker


def _write_tables(folder: Path, walks: Walks, titles: Sequence[str], rng: np.random.Generator) -> None:
    with (folder / f"{PREFIX}_pairs.csv").open("w", encoding="utf-8", newline="") as file:
        pairs = csv.writer(file, lineterminator="\n")
        pairs.writerow(("user", "item", "timestamp"))
        pairs.writerows(zip(walks.user.tolist(), walks.item.tolist(), walks.timestamp.tolist(), strict=True))
    with (folder / f"{PREFIX}_titles.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(("item", "title"))
        quoted = csv.writer(file, lineterminator="\r\n", quoting=csv.QUOTE_NONNUMERIC)
        quoted.writerows(enumerate(titles, start=1))
    seen = np.bincount(walks.item, minlength=len(titles) + 1)[1:]
    views = seen * 40 + rng.integers(0, 400, size=len(titles))
    likes = (views * rng.uniform(0.01, 0.12, size=len(titles))).astype(np.int64)
    with (folder / f"{PREFIX}_likes_and_views.txt").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(
            zip(range(1, len(titles) + 1), likes.tolist(), views.tolist(), strict=True)
        )


def _write_media(
    folder: Path,
    catalogue: Catalogue,
    clips: Sequence[Clip],
    damages: Sequence[Damage],
    *,
    seed: int,
    progress: Progress | None,
) -> None:
    covers, videos = folder / f"{PREFIX}_covers", folder / f"{PREFIX}_videos"
    covers.mkdir()
    videos.mkdir()

    def write_item(row: int) -> None:
        item, clip = row + 1, clips[row]
        video_damage = damage_of(damages, item, "video")
        if video_damage is not None:
            clip = dataclasses.replace(clip, seconds=max(DAMAGED_SECONDS, clip.seconds))
        rng = np.random.default_rng((seed, item))
        cover = covers / f"{item}.jpg"
        cover.write_bytes(encode_cover(cover_of(catalogue, row, clip)))
        if cover_damage := damage_of(damages, item, "cover"):
            damage_bytes(cover, cover_damage, rng)
        video = videos / f"{item}.mp4"
        if video_damage == "sound_only":
            encode_sound_only(video, clip.seconds)
            return
        encode_video(video, scene_of(catalogue, row, clip), clip, index_first=video_damage == "cut_index_first")
        if video_damage is not None:
            damage_bytes(video, video_damage, rng)

    # The encoders release the GIL, so that threads are enough to keep the cores busy.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(write_item, range(len(clips))), start=1):
            if progress is not None:
                progress("site", done, len(clips))


def _write_checksums(folder: Path) -> None:
    """SHA256SUMS over every file, in the format of sha256sum."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in files
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _move_into_place(building: Path, folder: Path) -> None:
    if folder.exists():
        retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(retired / folder.name)
        building.rename(folder)
        shutil.rmtree(retired)
    else:
        building.rename(folder)


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _report(folder: Path, marker: dict[str, Any], *, written: bool) -> SiteReport:
    parameters = marker["parameters"]
    return SiteReport(
        folder=folder,
        users=parameters["users"],
        items=parameters["items"],
        interactions=marker["interactions"],
        topics=parameters["topics"],
        seed=parameters["seed"],
        damaged=tuple(Damage(**damage) for damage in marker["damaged"]),
        written=written,
    )
