"""Result files that cannot be true are refused: the last look at a run's own numbers. No model is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from models.errors import RecordError
from models.evaluation.metrics import impossible_values, metrics_from_ranks, parse_metric
from models.evaluation.ranking import RankTable
from models.evaluation.record import RunRecord

#: Recorded figures and those of the ranks are the same arithmetic in the same order; only the text is in between.
_TOLERANCE = 1e-12


def check_figures(record: RunRecord, ranks: Mapping[str, RankTable]) -> None:
    """Assert that a record's metrics are those of its ranks and obey the bounds of one target per user.

    Args:
        record: The run's record.
        ranks: Its ranks by split, see :func:`models.evaluation.ranking.read_ranks`.

    Raises:
        RecordError: Naming the run, the split and each figure that is missing, different or impossible.
    """
    faults: list[str] = []
    for split, figures in record.metrics.items():
        if split not in ranks:
            faults.append(f"{split}: metrics without ranks")
            continue
        if len(ranks[split]) != record.protocol.n_users[split]:
            faults.append(f"{split}: {len(ranks[split])} ranks for {record.protocol.n_users[split]} users")
        for kind, metrics in (("unmasked", figures.unmasked), ("masked", figures.masked)):
            faults += [f"{split} {kind}: {fault}" for fault in impossible_values(metrics)]
            column = ranks[split].rank if kind == "unmasked" else ranks[split].rank_masked
            found = metrics_from_ranks(column, sorted({parse_metric(name)[1] for name in metrics}))
            faults += [
                f"{split} {kind}: {name} is {value!r}, its ranks give {found[name]!r}"
                for name, value in metrics.items()
                if not math.isclose(value, found[name], rel_tol=0, abs_tol=_TOLERANCE)
            ]
    if faults:
        raise RecordError(f"run {record.run_id}: these figures cannot stand: {'; '.join(faults)}")
