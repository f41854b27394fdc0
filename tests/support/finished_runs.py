"""Finished runs on disk, written by the real writers, with ranks and logs that a test makes up."""

import hashlib
import json

import numpy as np

from models.evaluation.metrics import metrics_from_ranks
from models.evaluation.ranking import RankTable, write_ranks
from models.evaluation.record import EvaluationProtocol, RunRecord, SplitMetrics, StoreVersion

CUTOFFS = (5, 10, 20)


def rank_table(split, ranks):
    """Everybody's target is item 1, the history changes nothing and nothing is tied."""
    ranks = np.asarray(ranks, dtype=np.int32)
    users, zeros = np.arange(1, len(ranks) + 1, dtype=np.int32), np.zeros(len(ranks), dtype=np.int32)
    return RankTable(split, users, zeros + 1, ranks, ranks, zeros)


def make_run(
    root,
    *,
    model,
    dataset,
    seed,
    ranks,
    valid=None,
    parameters=None,
    training=None,
    epochs=(),
    n_items=1000,
    stores=(),
    extra=None,
):
    """One run below ``root/runs``; ``ranks`` are those of the test users, ``valid`` (default: the same) the others'."""
    tables = [rank_table("valid", ranks if valid is None else valid), rank_table("test", ranks)]
    config = {"model": model, "dataset": dataset, "seed": seed, "parameters": dict(parameters or {})}
    config["training"] = {"max_length": 10, **(training or {})}
    facts = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    run_dir = root / "runs" / f"{model}-{dataset}-s{seed}-{facts}"
    record = RunRecord(
        run_id=run_dir.name,
        model=model,
        dataset=dataset,
        dataset_version="d" * 64,
        stores=tuple(StoreVersion(name=f"{dataset}/{name}", version=version) for name, version in stores),
        seed=seed,
        config=config,
        git_sha=None,
        lock_hash=None,
        protocol=EvaluationProtocol(n_candidates=n_items, n_users={table.split: len(table) for table in tables}),
        metrics={table.split: split_metrics(table.rank) for table in tables},
        selected_epoch=max((row["epoch"] for row in epochs), default=0),
        extra=extra or {},
    )
    record.write(run_dir)
    write_ranks(run_dir / "ranks.parquet", tables)
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in epochs))
    return run_dir


def split_metrics(ranks):
    figures = metrics_from_ranks(ranks, CUTOFFS)
    return SplitMetrics(unmasked=figures, masked=figures)


def hits(n_users, n_hits):
    """``n_hits`` ranks of 0, all others beyond every cut-off: HR@k and NDCG@k are both ``n_hits / n_users``."""
    return [0] * n_hits + [500] * (n_users - n_hits)
