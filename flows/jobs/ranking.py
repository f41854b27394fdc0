"""Rank the splits of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.distributed import ALONE, Workers
from models.evaluation.mode import eval_mode, model_device
from models.evaluation.ranking import RankTable, as_module, evaluate
from models.evaluation.record import SplitMetrics
from models.evaluation.seal import open_test_split
from models.interface import Described
from models.sequences.dataset import SPLITS
from models.sequences.seeding import Stream, stream_generator

if TYPE_CHECKING:
    from flows.jobs.finished_run import FinishedRun
    from models.interface import ProgressCallback, Recommender
    from models.sequences.dataset import SequenceData
    from models.training.config import TrainingConfig


def rank_splits(
    model: Recommender,
    data: SequenceData,
    training: TrainingConfig,
    *,
    seed: int,
    progress: ProgressCallback | None = None,
    workers: Workers = ALONE,
) -> list[RankTable]:
    """Ranks of the validation and of the test split.

    The caller has opened the test split for this choice of weights (:func:`models.evaluation.seal.open_test_split`).
    """
    return [
        evaluate(
            model,
            data,
            split,
            max_length=training.max_length,
            batch_size=training.eval_batch_size,
            seed=seed,
            progress=progress,
            workers=workers,
        )
        for split in ("valid", "test")
    ]


def describe(
    model: Recommender, data: SequenceData, training: TrainingConfig, *, seed: int
) -> dict[str, float | list[float]]:
    """What a trained model says of itself, tried on users of the validation split; empty when it says nothing."""
    module = as_module(model)
    if not isinstance(model, Described) or not data.has_split("valid"):
        return {}
    examples = data.evaluation_examples("valid").to(model_device(module))
    batch, _ = examples.read(examples.shortest_first(training.eval_batch_size)[-1], max_length=training.max_length)
    generator = stream_generator(seed, Stream.EVALUATION, len(SPLITS), device=model_device(module))
    with eval_mode(module):
        return dict(model.describe(batch, generator=generator))


def rank_again(run: FinishedRun, *, progress: ProgressCallback | None = None) -> list[RankTable]:
    """Rank both splits of a finished run with its selected weights; targets have the model's numbers.

    Raises:
        RecordError: When the test split was opened for the weights of another epoch.
    """
    open_test_split(run.folder, selected_epoch=run.epoch, configuration=run.record.run_id)
    with run.at_work():
        return rank_splits(run.model, run.inputs.data, run.training, seed=run.record.seed, progress=progress)


def split_metrics(ranks: RankTable, cutoffs: tuple[int, ...]) -> SplitMetrics:
    """Metrics of one split with the history among the candidates and without it."""
    return SplitMetrics(unmasked=ranks.metrics(cutoffs), masked=ranks.metrics(cutoffs, masked=True))
