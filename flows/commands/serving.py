"""``reelstore recommend``, ``index``, ``slices``, ``tails`` and ``probe``: what a finished run is good for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands.outcome import Outcome, table
from flows.errors import CallError
from flows.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from flows.jobs.finished_run import FinishedRun
    from models.evaluation.slices import Slice

#: Rows of the index and the items that they hold.
ITEMS_FILE = "items.parquet"


def recommend(settings: Settings, options: argparse.Namespace) -> Outcome:
    """The best items for one user, or for all users, history excluded."""
    from flows.jobs.finished_run import load_run

    if options.all_users:
        if options.out is None:
            raise CallError("--all-users: expected --out FILE.parquet, the file that the lists go to")
        return _for_all(load_run(settings, options.run_id), Path(options.out), k=options.k)
    if options.out is not None:
        raise CallError("--out goes with --all-users; the list of one user is printed")
    return _for_one(load_run(settings, options.run_id), options.user, k=options.k)


def _for_one(run: FinishedRun, user_id: str, *, k: int) -> Outcome:
    from models.evaluation.lists import next_best

    record, users = run.record, run.prepared.users
    numbers = dict(zip(users["user_id"].to_list(), users["user"].to_list(), strict=True))
    if user_id not in numbers:
        raise CallError(f"{record.dataset} has no user {user_id!r} (after k-core); it has {len(numbers)} users")
    if numbers[user_id] not in run.inputs.data.users:
        raise CallError(f"run {record.run_id} knows nothing of user {user_id!r}: none of their items has all features")
    with run.at_work():
        data, longest = run.inputs.data, run.training.max_length
        top = next_best(run.model, data, [numbers[user_id]], k=k, max_length=longest, seed=record.seed)
    items = run.inputs.items
    rows = [
        {"item_id": items["item_id"][number - 1], "title": items["title"][number - 1], "score": round(score, 4)}
        for number, score in zip(top.items[0].tolist(), top.scores[0].tolist(), strict=True)
    ]
    text = table(("item", "score", "title"), [[row["item_id"], row["score"], row["title"] or ""] for row in rows])
    return Outcome({"run_id": record.run_id, "user": user_id, "items": rows}, text)


def _for_all(run: FinishedRun, out: Path, *, k: int) -> Outcome:
    """Write ``user_id`` and ``item_ids`` (a list, best first), one row per user with a history."""
    import numpy as np
    import polars as pl

    from models.evaluation.lists import next_lists
    from models.files import write_atomically

    training = run.training
    with run.at_work():
        lists = next_lists(
            run.model,
            run.inputs.data,
            k=k,
            max_length=training.max_length,
            batch_size=training.eval_batch_size,
            seed=run.record.seed,
        )
    item_ids = np.array(run.inputs.item_ids, dtype=np.object_)[lists.items - 1]  # [u, k]
    named = pl.DataFrame(
        {"user": lists.user, "item_ids": item_ids.tolist()}, schema_overrides={"item_ids": pl.List(pl.String)}
    )
    users = run.prepared.users.select("user", "user_id")
    frame = named.join(users, on="user", how="left", maintain_order="left").select("user_id", "item_ids")
    write_atomically(out, frame.write_parquet)
    payload = {"run_id": run.record.run_id, "file": str(out), "users": frame.height, "k": k}
    without = users.height - frame.height
    left_out = f"; {without} of {users.height} users left out: none of their items has all features" if without else ""
    return Outcome(payload, f"{out}: {k} items for each of {frame.height} users{left_out}")


def index(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Write a run's item vectors as a faiss index, and beside it which row is which item."""
    import polars as pl

    from flows.jobs.finished_run import load_run
    from models.evaluation.index import ItemIndex
    from models.files import write_atomically

    run = load_run(settings, options.run_id)
    made, out = ItemIndex.of_model(run.model), Path(options.out)
    rows = pl.DataFrame(
        {"row": range(made.n_items), "item_id": run.inputs.item_ids}, schema_overrides={"row": pl.Int64}
    )
    write_atomically(out / ITEMS_FILE, rows.write_parquet)
    path = made.write(out)
    payload = {
        "run_id": run.record.run_id,
        "index": str(path),
        "items": str(out / ITEMS_FILE),
        "rows": made.n_items,
        "width": made.index.d,
    }
    text = f"{path}: {made.n_items} vectors of width {made.index.d}; {out / ITEMS_FILE}: the item of each row"
    return Outcome(payload, text)


def slices(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Test metrics of parts of the users, from the saved ranks, and figures of the lists that they get."""
    from flows.jobs.finished_run import load_run
    from flows.jobs.train import RANKS_FILE
    from models.evaluation.ranking import read_ranks
    from models.evaluation.slices import by_history_length, by_target_count

    run = load_run(settings, options.run_id)
    ranks = run.inputs.with_model_numbers(read_ranks(run.folder / RANKS_FILE)["test"])
    cutoffs = (options.k,)
    parts = {
        "history length": by_history_length(ranks, run.inputs.data, ks=cutoffs),
        "training interactions of the target": by_target_count(ranks, run.inputs.data, ks=cutoffs),
    }
    figures = _list_figures(run, k=options.k, separator=options.separator)
    payload = {
        "run_id": run.record.run_id,
        "slices": {name: [_plain(part) for part in found] for name, found in parts.items()},
        "lists": figures,
    }
    text = "\n\n".join(
        [
            f"{run.record.run_id}, test split",
            *(_slice_table(name, found) for name, found in parts.items()),
            table(("lists, history left out", ""), [[name, f"{value:.4f}"] for name, value in figures.items()]),
        ]
    )
    return Outcome(payload, text)


def _list_figures(run: FinishedRun, *, k: int, separator: str | None) -> dict[str, float]:
    """Coverage, popularity and, where the items have categories, diversity of the lists of the test split's users."""
    from models.evaluation.lists import list_metrics, recommended_lists

    training, data = run.training, run.inputs.data
    with run.at_work():
        lists = recommended_lists(
            run.model,
            data,
            "test",
            k=k,
            max_length=training.max_length,
            batch_size=training.eval_batch_size,
            seed=run.record.seed,
        )
    return list_metrics(lists, data.item_counts().numpy(), categories=_categories(run.inputs.items, separator))


def tails(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Metrics of held-out users: the last fifth of the rows is to be found, or every row after those before it."""
    from flows.jobs.finished_run import load_run

    run = load_run(settings, options.run_id)
    if min(options.k) < 1:
        raise CallError(f"-k: expected cut-offs of at least 1, got {sorted(options.k)}")
    measure = _every_position if options.every_position else _last_fifth
    with run.at_work():
        unmasked, masked = measure(run, sorted(set(options.k)))
    rows = [[name, f"{unmasked[name]:.4f}", f"{masked[name]:.4f}"] for name in unmasked]
    payload = {"run_id": run.record.run_id, "unmasked": unmasked, "masked": masked}
    title = "every position" if options.every_position else "last fifth of the rows"
    return Outcome(payload, table((title, "unmasked", "masked"), rows))


def _last_fifth(run: FinishedRun, cutoffs: Sequence[int]) -> tuple[dict[str, float], dict[str, float]]:
    """With the history among the candidates, and without it."""
    from models.evaluation.tails import tail_metrics

    unmasked, masked = (
        tail_metrics(
            run.model,
            run.inputs.data,
            "test",
            max_length=run.training.max_length,
            ks=cutoffs,
            masked=without_history,
            batch_size=run.training.eval_batch_size,
            seed=run.record.seed,
        )
        for without_history in (False, True)
    )
    return unmasked, masked


def _every_position(run: FinishedRun, cutoffs: Sequence[int]) -> tuple[dict[str, float], dict[str, float]]:
    """With the history among the candidates, and without it."""
    from models.evaluation.tails import rank_every_position

    found = rank_every_position(
        run.model,
        run.inputs.data,
        "test",
        max_length=run.training.max_length,
        batch_size=run.training.eval_batch_size,
        seed=run.record.seed,
    )
    return found.metrics(cutoffs), found.metrics(cutoffs, masked=True)


def probe(settings: Settings, options: argparse.Namespace) -> Outcome:
    """How well a linear layer tells an item's category from its trained vector."""
    from flows.jobs.finished_run import load_run
    from models.evaluation.index import inner_product_model
    from models.evaluation.probing import linear_probe

    run = load_run(settings, options.run_id)
    categories = _categories(run.inputs.items, options.separator)
    if categories is None:
        raise CallError(f"{run.record.dataset} has no column 'category' of items, so there is nothing to probe for")
    vectors = inner_product_model(run.model).item_vectors().detach().cpu()
    try:
        found = linear_probe(vectors, categories, folds=options.folds, seed=run.record.seed)
    except ValueError as error:
        raise CallError(f"{run.record.run_id}: {error}") from None
    rows = [
        ["accuracy", f"{found.accuracy:.4f}"],
        ["95 % interval", f"{found.low:.4f} to {found.high:.4f}"],
        ["of always the most frequent one", f"{found.majority:.4f}"],
        ["items", found.n_items],
        ["categories", found.n_categories],
        ["items left out", found.left_out],
    ]
    return Outcome({"run_id": run.record.run_id, **asdict(found)}, table(("category of an item", ""), rows))


def _categories(items: pl.DataFrame, separator: str | None) -> NDArray[np.int64] | None:
    """int64 ``[n + 1]``: a number from 1 for each item's category, 0 for none; None where the dataset has none."""
    from models.evaluation.probing import category_numbers

    if "category" not in items.columns:
        return None
    names = [None if name is None else str(name) for name in items["category"].to_list()]
    return category_numbers(names, separator=separator)


def _plain(part: Slice) -> dict[str, Any]:
    return {"slice": part.label, **asdict(part)}


def _slice_table(name: str, parts: Sequence[Slice]) -> str:
    metrics = next((list(part.unmasked) for part in parts if part.unmasked), [])
    header = [name, "users", *metrics, *(f"{metric} masked" for metric in metrics)]
    rows = [
        [
            part.label,
            part.n_users,
            *(_figure(part.unmasked, metric) for metric in metrics),
            *(_figure(part.masked, metric) for metric in metrics),
        ]
        for part in parts
    ]
    return table(header, rows)


def _figure(figures: Mapping[str, float], metric: str) -> str:
    return f"{figures[metric]:.4f}" if figures else "–"
