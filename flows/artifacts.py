"""What a flow of an extraction leaves in Prefect for a person to look at."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_image_artifact, create_link_artifact, create_table_artifact

from flows.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from extractors.audit import Comparison
    from feature_store import Gates
    from flows.jobs.extraction import Extraction
    from flows.jobs.shards import Shard
    from flows.reporting.contact_sheet import Strip

#: Rows of a table; a page that has to show more is of no use.
_MOST_ROWS = 500
_STRIPS = 3
_CELL = (150, 112)
_JPEG_QUALITY = 70


def key(what: str, dataset: str) -> str:
    """The key of an artifact: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{what}-{dataset}".lower()).strip("-")


def features(dataset: str, reports: Sequence[dict[str, Any]]) -> None:
    """A table of what the run did to each feature."""
    create_table_artifact(
        key=key("extract", dataset), table=list(reports), description=f"Feature stores of {dataset}: what this run did"
    )


def shards(dataset: str, found: Sequence[Shard]) -> None:
    """A table of the shards; of very many those that are not whole come first."""
    whole = sum(shard.done == shard.items for shard in found)
    about = f"Shards of {dataset}: {whole} of {len(found)} are whole"
    rows = sorted(found, key=lambda shard: shard.done == shard.items) if len(found) > _MOST_ROWS else found
    if len(found) > _MOST_ROWS:
        about += f"; {_MOST_ROWS} are shown, those that are not whole first"
    create_table_artifact(
        key=key("shards", dataset), table=[row.as_dict() for row in rows[:_MOST_ROWS]], description=about
    )


def quality(extraction: Extraction, blocked: dict[str, str]) -> None:
    """A table of the figures of the latest snapshots, their limits, and what a limit held back.

    Args:
        extraction: The extraction, after its commits.
        blocked: By feature, why nothing was published.
    """
    rows = [
        {
            "feature": feature.name,
            **_figures(feature.store),
            "gates": _limits(extraction.gates(feature.name)),
            "held back": blocked.get(feature.name, ""),
        }
        for group in extraction.groups
        for feature in group.features
    ]
    create_table_artifact(
        key=key("quality", extraction.dataset),
        table=rows,
        description=f"Figures of the latest snapshots of {extraction.dataset}, and the limits they must keep",
    )


def differences(dataset: str, comparisons: Sequence[Comparison]) -> None:
    """A table of the videos that decode differently when they are decoded again in full."""
    from extractors.audit import count

    told = [entry.as_dict() for entry in comparisons if entry.verdict != "equal"]
    sums = "; ".join(f"{row.decoder}: {row.equal} of {row.checked} equal" for row in count(comparisons))
    about = f"Videos of {dataset} that were decoded again in full: {sums or 'none'}"
    create_table_artifact(key=key("verify", dataset), table=told[:_MOST_ROWS], description=about)


def frames(extraction: Extraction) -> None:
    """A picture of the sampled frames of a few videos; nothing where the dataset has none that can be read."""
    from flows.reporting import contact_sheet

    group = next((group for group in extraction.groups if group.kind == "video"), None)
    if group is None or extraction.prepared is None:
        return
    feature = group.features[0]
    bad = set(feature.store.quarantined()["item_id"])
    sheet = contact_sheet.build(extraction.prepared, videos=_STRIPS, sampling=feature.spec.sampling, quarantined=bad)
    if sheet.strips:
        ids = ", ".join(strip.item_id for strip in sheet.strips)
        create_image_artifact(
            image_url=picture(sheet.strips),
            key=key("frames", extraction.dataset),
            description=f"What the encoders see of the videos {ids}, one row each",
        )


def report(settings: Settings, dataset: str) -> None:
    """A link to the report, where there is one."""
    path = settings.root / "report.html"
    if path.is_file():
        create_link_artifact(key=key("report", dataset), link=path.as_uri(), link_text=path.name)


def picture(strips: Sequence[Strip]) -> str:
    """Strips of frames as one small JPEG, in a data URI, so that it is shown without a web server."""
    from PIL import Image

    rows = [[_thumbnail(frame.uri) for frame in strip.frames] for strip in strips]
    width = max(image.width for row in rows for image in row)
    height = max(image.height for row in rows for image in row)
    sheet = Image.new("RGB", (max(map(len, rows)) * width, len(rows) * height), "white")
    for line, row in enumerate(rows):
        for column, image in enumerate(row):
            sheet.paste(image, (column * width, line * height))
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _thumbnail(uri: str) -> Image:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.thumbnail(_CELL)
    return image


def _figures(store: Any) -> dict[str, Any]:
    """What the manifest of the latest snapshot says about its vectors; empty where there is none."""
    from feature_store import NoSnapshotError

    try:
        snapshot = store.latest()
    except NoSnapshotError:
        return {"version": None}
    figures = snapshot.quality.model_dump()
    drift = figures.pop("drift", None)
    coverage = figures.pop("coverage")
    shown = {"coverage": round(coverage["share"], 4), "drift": drift and round(drift["distance"], 6)}
    short = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in figures.items()}
    return {"version": snapshot.version, **shown, **short}


def _limits(gates: Gates) -> str:
    limits = gates.model_dump(exclude_none=True)
    return ", ".join(f"{name} = {limit:g}" for name, limit in limits.items()) or "none"
