"""Item vectors as a faiss index, for models whose score is an inner product.

The index is flat: the search is exact, and its lists are those of :func:`models.modules.retrieval.top_k` up to the
rounding of the products. Equal scores are put in the order of the ids here, since faiss leaves their order open.

Shape legend: b batch, n items, d width, k list length, e excluded ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ConfigError, RecommendationError
from models.files import write_atomically
from models.interface import Recommender, TopK
from models.sequences.batch import SequenceBatch

INDEX_FILE = "items.faiss"

#: Longest list that faiss can make on a GPU.
GPU_DEPTH = 2048


@runtime_checkable
class InnerProductScored(Protocol):
    """A recommender whose score of an item is the inner product of a state of the history and the item's vector."""

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, d]``."""
        ...

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, d]``; row 0 is padding."""
        ...


def inner_product_model(model: Recommender) -> InnerProductScored:
    """The model as one that an index can serve.

    Raises:
        ConfigError: For a model that scores in another way.
    """
    if not isinstance(model, InnerProductScored):
        raise ConfigError(
            f"{type(model).__name__} has no item vectors whose inner product with a state is the score (query and "
            f"item_vectors), which is what is searched and probed; its recommend gives its best items"
        )
    return model


@dataclass(frozen=True)
class ItemIndex:
    """A searchable table of items.

    Attributes:
        index: The faiss index over items 1..n; row i holds item i + 1.
        n_items: n.
        on_gpus: A copy on the GPUs that faiss found, which answers the usual short searches.
    """

    index: Any
    n_items: int
    on_gpus: Any = None

    @classmethod
    def of_model(cls, model: Recommender) -> ItemIndex:
        """Index a model's item vectors.

        Raises:
            ConfigError: For a model whose score is no inner product, or without faiss.
        """
        vectors = inner_product_model(model).item_vectors().detach()[1:].float().cpu().contiguous().numpy()
        faiss = _faiss()
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return cls(index, len(vectors), _on_gpus(faiss, index))

    @classmethod
    def read(cls, run_dir: Path, *, n_items: int) -> ItemIndex:
        """Read ``items.faiss`` of a run's folder; it is put on all GPUs when faiss finds some.

        Raises:
            ConfigError: Without the file, without faiss, or for an index of another catalogue.
        """
        path = run_dir / INDEX_FILE
        if not path.is_file():
            raise ConfigError(f"{path}: no index here; export it with ItemIndex.of_model(model).write(run_dir)")
        faiss = _faiss()
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ConfigError(f"{path}: faiss cannot read it ({error}); export it again") from None
        if index.ntotal != n_items:
            raise ConfigError(f"{path}: holds {index.ntotal} items, the dataset has {n_items}; export it again")
        return cls(index, n_items, _on_gpus(faiss, index))

    def write(self, run_dir: Path) -> Path:
        """Write ``items.faiss`` into the run's folder, atomically."""
        path = run_dir / INDEX_FILE
        write_atomically(path, lambda temporary: _faiss().write_index(self.index, str(temporary)))
        return path

    def recommend(self, query: Tensor, *, k: int, exclude: Tensor | None = None) -> TopK:
        """The ``k`` best items of every row; of equal scores the smaller id comes first.

        Args:
            query: float ``[b, d]``, such as the model's ``query``.
            k: List length, at least 1.
            exclude: int64 ``[b, e]``, ids never to return, 0 where unused.

        Raises:
            RecommendationError: When a row has fewer than ``k`` candidates or a state is NaN.
        """
        if bool(query.isnan().any()):
            raise RecommendationError("the model gave NaN states; its weights are unusable: train it again")
        states = np.ascontiguousarray(query.detach().float().cpu().numpy())
        never = np.zeros((len(states), 0), dtype=np.int64) if exclude is None else exclude.cpu().numpy()
        depth = min(self.n_items, k + never.shape[1] + 1)
        scores, items = self._search(states, depth)
        best = [self._best(*row, k) for row in zip(states, scores, items, never, strict=True)]
        return TopK(
            items=torch.from_numpy(np.stack([row[0] for row in best])),
            scores=torch.from_numpy(np.stack([row[1] for row in best])),
        )

    def _best(
        self,
        state: NDArray[np.float32],
        scores: NDArray[np.float32],
        items: NDArray[np.int64],
        never: NDArray[np.int64],
        k: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Items and scores of one row: search deeper until nothing beyond can equal the k-th score."""
        while True:
            kept = ~np.isin(items, never)
            order = np.lexsort((items[kept], -scores[kept]))[:k]
            found, complete = scores[kept][order], len(items) == self.n_items
            if 1 <= k == len(found) and (complete or scores[-1] < found[-1]):
                return items[kept][order], found
            if complete:
                raise RecommendationError(f"k: expected 1 to {kept.sum()} (candidates left after exclusion), got {k}")
            scores, items = (found[0] for found in self._search(state[None], min(self.n_items, 2 * len(items))))

    def _search(self, states: NDArray[np.float32], depth: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and items of the best ``depth`` rows."""
        index = self.index if self.on_gpus is None or depth > GPU_DEPTH else self.on_gpus
        scores, rows = index.search(states, depth)
        return scores, rows + 1


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ConfigError("faiss is not installed: install the extra 'cpu' or 'gpu' of this project") from None
    return faiss


def _on_gpus(faiss: Any, index: Any) -> Any:
    """A copy on all GPUs; None with a CPU build or without a GPU."""
    count = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return faiss.index_cpu_to_all_gpus(index) if count else None
