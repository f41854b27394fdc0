"""All real clips through the whole way: decode pool, encoder, store. Each ends as a row or with its true reason."""

import os
from pathlib import Path

from extractors.extract import extract_visual, hash_media, open_feature
from extractors.pool import DecodePool
from feature_store import FeatureStore

SHARED = Path(os.environ.get("REELSTORE_SHARED", Path(__file__).parents[2].parent / "shared"))
VIDEOS = SHARED / "data" / "videos"

#: What a full decode of each clip says (probe.csv): no video stream, an encrypted track, damaged pictures.
REASONS = {
    "decord_corrupted.mp4": "corrupt",
    "exo_full_blocks.mkv": "no_video",
    "exo_invalid-bitstream.webm": "corrupt",
    "exo_sample_fragmented_clearkey.mp4": "encrypted",
    "exo_sample_opus.mp4": "no_video",
}


def test_every_real_clip_ends_as_features_or_in_quarantine_with_its_reason(tmp_path):
    clips = {path.name: path for path in sorted(VIDEOS.iterdir()) if path.suffix.lower() not in (".csv", ".md")}
    assert len(clips) == 30, f"expected 30 clips in {VIDEOS}"
    contents = hash_media(clips)
    store = FeatureStore.open(tmp_path / "real" / "videomae", create=True)
    feature = open_feature(
        "videomae", {"checkpoint": "tiny"}, contents=contents, store=store, toy_root=tmp_path / "checkpoints"
    )
    with DecodePool(workers=2, deadline_seconds=60) as pool:
        (report,) = extract_visual(clips, [feature], contents=contents, pool=pool)
    bad = dict(store.quarantined().select("item_id", "reason").iter_rows())
    assert bad == REASONS
    assert (report.encoded, report.failed) == (25, 5)
    assert set(store.latest().item_ids) == set(clips) - set(REASONS)
