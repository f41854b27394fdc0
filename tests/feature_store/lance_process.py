"""Export a store to Lance and read it back: ``python lance_process.py ROOT OUT BLOCK_BYTES``, the rows as JSON.

In a process of its own, for once lance is imported it warns at every later fork of that process.
"""

import json
import sys

import lance

from feature_store import FeatureStore, export


def main():
    root, out, block_bytes = sys.argv[1:]
    export._BLOCK_BYTES = int(block_bytes)
    made = export.export_snapshot(FeatureStore.open(root).latest(), out, "lance")
    data = lance.dataset(f"{out}/data.lance")
    table = data.to_table().drop_columns(["content_sha256"])
    said = {
        "form": made.form, "rows": made.rows,
        "types": {field.name: str(field.type) for field in table.schema}, "table": table.to_pylist(),
        "taken": data.take([17, 3])["item_id"].to_pylist(),
    }  # fmt: skip
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
