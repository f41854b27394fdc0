"""Where a trained model puts users, their next items and these items' frames: cosines, and a map by t-SNE.

A map of a few users of one run, as in Fig. 7 of the MealRec paper. Distances in such a map are no evidence; the mean
cosine over many users is printed beside it.

Shape legend: u users, n items, f frames, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from datasets_spec.errors import DatasetsError
from feature_store import StoreError
from flows.errors import CallError, WorkError
from flows.reporting import charts
from flows.reporting.charts import UserVectors
from flows.reporting.runs import Group, Run, best_of_each_model
from flows.reporting.view import Part, Picture, plural
from flows.settings import Settings
from models.errors import ModelsError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from models.interface import Recommender
    from models.sequences.batch import SequenceBatch

#: Users on a map, and users whose cosines are averaged.
SHOWN, AVERAGED = 8, 512
SEED = 0

#: Largest perplexity; a map of few points gets a third of their number.
_PERPLEXITY = 30.0
_WEIGHTS = "checkpoints"
#: Why a model has no place on the map.
_NO_PRODUCT = "the score is no inner product of one vector of the user and one of the item"


class NoVectorsError(Exception):
    """A run whose vectors cannot be shown, and why."""


@dataclass(frozen=True)
class Vectors:
    """What a model makes of some test users.

    Attributes:
        users: float ``[u, d]``, the vector that scores items.
        targets: float ``[u, d]``, the vector of each user's next item.
        frames: float ``[u, f, d]``, the frames of that item as the model reads them; None where it reads none.
    """

    users: NDArray[np.float64]
    targets: NDArray[np.float64]
    frames: NDArray[np.float64] | None = None


def collect(settings: Settings, groups: Sequence[Group]) -> Part:
    """A map for each model of one dataset: the first seed of the configuration that validation chose."""
    pictures: list[Picture] = []
    reasons: dict[str, list[str]] = {}
    for group in best_of_each_model(groups):
        run = group.runs[0]
        try:
            pictures.append(_picture(run, _vectors(settings, run)))
        except NoVectorsError as error:
            reasons.setdefault(str(error), []).append(f"{group.label} (seed {run.record.seed})")
    sentences = tuple(f"No map of {', '.join(labels)}: {reason}." for reason, labels in reasons.items())
    return Part("Vectors of users and items", sentences, pictures=tuple(pictures))


def _vectors(settings: Settings, run: Run) -> Vectors:
    """Load a run and ask its model.

    Raises:
        NoVectorsError: When that is not possible.
    """
    if not (run.folder / _WEIGHTS).is_dir():
        raise NoVectorsError("the weights are not there")
    if find_spec("sklearn") is None:
        raise NoVectorsError("scikit-learn is not installed; install it into the environment of reelstore")
    import torch

    from flows.jobs.finished_run import load_run
    from models.evaluation.mode import eval_mode
    from models.evaluation.ranking import as_module

    try:
        finished = load_run(settings, run.record.run_id)
        examples = finished.inputs.data.evaluation_examples("test")
        chosen = np.unique(np.linspace(0, len(examples) - 1, AVERAGED).round().astype(np.int64))
        batch = examples.batch(torch.from_numpy(chosen), max_length=finished.training.max_length)
        with eval_mode(as_module(finished.model)):
            return of_model(finished.model, batch, generator=torch.Generator().manual_seed(run.record.seed))
    except (CallError, WorkError, ModelsError, DatasetsError, StoreError, ValidationError, OSError) as error:
        raise NoVectorsError(str(error).partition("\n")[0]) from error


def of_model(model: Recommender, batch: SequenceBatch, *, generator: torch.Generator) -> Vectors:
    """The vectors whose inner product is (or orders as) the model's score.

    Raises:
        NoVectorsError: When the model scores in another way.
    """
    from models.errors import ConfigError
    from models.evaluation.index import InnerProductScored
    from models.recommenders.mealrec import MealRec

    frames = None
    if isinstance(model, InnerProductScored):
        try:
            users, items = model.query(batch, generator=generator), model.item_vectors()
        except ConfigError as error:  # with these settings the score is something else
            raise NoVectorsError(_NO_PRODUCT) from error
    elif isinstance(model, MealRec):
        users, items = model.denoised_preference(batch, generator=generator), model.backbone.items.table
        frames = _frames(model, batch, generator)
    else:
        raise NoVectorsError(_NO_PRODUCT)
    return Vectors(_array(users), _array(items[batch.target]), None if frames is None else _array(frames))


def _frames(model: Any, batch: SequenceBatch, generator: torch.Generator) -> torch.Tensor | None:
    """The target's frames ``[u, f, d]`` as MealRec's preference denoiser reads them once the user has watched it.

    None without that denoiser.
    """
    return model.frames_read(_and_target(batch), generator=generator) if model.config.use_npd else None


def _and_target(batch: SequenceBatch) -> SequenceBatch:
    """The histories with their targets behind them; where there is no room the oldest item goes."""
    import torch.nn.functional as F

    from models.sequences.batch import SequenceBatch

    lengths = batch.mask.sum(dim=1, keepdim=True)
    longer = F.pad(batch.item_ids, (0, 1)).scatter(1, lengths, batch.target.unsqueeze(1))  # [u, l + 1]
    item_ids = longer[:, :-1].where(lengths < batch.item_ids.shape[1], longer[:, 1:])
    return SequenceBatch(item_ids, item_ids > 0, batch.target, batch.user)


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def mean_cosines(vectors: Vectors) -> tuple[float, float]:
    """Mean cosine of each user with the own target, and with the target of the next user in the list."""
    users, targets = _unit(vectors.users), _unit(vectors.targets)
    own = (users * targets).sum(axis=1)
    other = (users * np.roll(targets, 1, axis=0)).sum(axis=1)
    return float(own.mean()), float(other.mean())


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)


def flat_map(vectors: Vectors, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[UserVectors]]:
    """t-SNE of unit vectors, started from the first two principal components with a fixed seed.

    Args:
        vectors: Of all users.
        chosen: int64 ``[c]``, which of them are shown.

    Returns:
        Points ``[p, 2]``, and for each chosen user which of them are its own.
    """
    from sklearn.manifold import TSNE

    n = len(chosen)
    points = [vectors.users[chosen], vectors.targets[chosen]]
    frames = 0 if vectors.frames is None else vectors.frames.shape[1]
    if vectors.frames is not None:
        points.append(vectors.frames[chosen].reshape(n * frames, -1))
    unit = _unit(np.concatenate(points))
    perplexity = min(_PERPLEXITY, (len(unit) - 1) / 3)
    places = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=SEED).fit_transform(unit)
    users = [
        UserVectors(number, n + number, tuple(range(2 * n + frames * number, 2 * n + frames * (number + 1))))
        for number in range(n)
    ]
    return np.asarray(places, dtype=np.float64), users


def _picture(run: Run, vectors: Vectors) -> Picture:
    record, n = run.record, len(vectors.users)
    if n < SHOWN:
        raise NoVectorsError(f"the test split has {plural(n, 'user')}, a map takes {SHOWN}")
    chosen = np.linspace(0, n - 1, SHOWN).round().astype(np.int64)
    places, users = flat_map(vectors, chosen)
    own, other = mean_cosines(vectors)
    cosines = f"mean cosine of a user and the own target {own:.3f}, and another user's target {other:.3f}"
    frames = "" if vectors.frames is None else ", and the target's frames as its preference denoiser reads them"
    return charts.vector_map(
        places,
        users,
        caption=f"{record.model} on {record.dataset}, run {record.run_id}: {SHOWN} test users, evenly spaced, each in "
        f"a colour, with the target item{frames}. t-SNE of unit vectors, seed {SEED}, started from the principal "
        f"components. Over {plural(n, 'test user')}: {cosines}. Distances in a t-SNE map are not evidence; the cosines "
        "are figures of this one run.",
        alternative=cosines,
    )
