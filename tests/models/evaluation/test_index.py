import sys
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from models.errors import ConfigError, RecommendationError
from models.evaluation import index as index_module
from models.evaluation.index import INDEX_FILE, ItemIndex
from models.evaluation.mode import eval_mode
from models.modules.retrieval import score_all, top_k
from models.registry import build
from models.sequences.batch import SequenceBatch


class Vectors:
    """An inner-product model that is nothing but its item vectors."""

    def __init__(self, table):
        self.table = table

    def query(self, batch, *, generator):
        return batch

    def item_vectors(self):
        return self.table


def whole_numbers(rows, d, *, seed, values=3):
    """Small whole numbers: products are exact, and many of them are equal."""
    return torch.randint(-values, values + 1, (rows, d), generator=torch.Generator().manual_seed(seed)).float()


def assert_same(found, expected):
    assert found.items.tolist() == expected.items.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_lists_with_ties_are_those_of_the_brute_force(seed, k):
    table, states = whole_numbers(301, 3, seed=seed), whole_numbers(17, 3, seed=100 + seed)
    exclude = torch.randint(0, 301, (17, 9), generator=torch.Generator().manual_seed(seed))
    expected = top_k(score_all(states, table), k, exclude)
    assert (expected.scores[:, 1:] == expected.scores[:, :-1]).any() or k == 1
    assert_same(ItemIndex.of_model(Vectors(table)).recommend(states, k=k, exclude=exclude), expected)


def test_a_collapsed_table_gives_the_smallest_ids():
    found = ItemIndex.of_model(Vectors(torch.ones(51, 2))).recommend(torch.ones(1, 2), k=3)
    assert found.items.tolist() == [[1, 2, 3]]


def test_all_items_may_be_asked_for_and_no_more():
    index = ItemIndex.of_model(Vectors(whole_numbers(6, 2, seed=0)))
    states = torch.tensor([[1.0, 2.0]])
    assert sorted(index.recommend(states, k=5).items[0].tolist()) == [1, 2, 3, 4, 5]
    for k in (0, 4):
        with pytest.raises(RecommendationError, match=f"expected 1 to 3 .*got {k}"):
            index.recommend(states, k=k, exclude=torch.tensor([[2, 4, 0]]))
    with pytest.raises(RecommendationError, match="NaN states"):
        index.recommend(states * float("nan"), k=1)


def test_an_exported_model_recommends_what_it_recommended(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build("sasrec", {"d": 8, "layers": 1, "inner": 16, "max_length": 6}, n_items=60)
    with torch.no_grad():
        model.encoder.items.weight[1:].normal_(generator=torch.Generator().manual_seed(2))
    ids = torch.randint(1, 61, (9, 6), generator=torch.Generator().manual_seed(3))
    batch = SequenceBatch(ids, ids > 0, torch.zeros(9, dtype=torch.int64), torch.arange(9))
    assert ItemIndex.of_model(model).write(tmp_path) == tmp_path / INDEX_FILE
    assert [path.name for path in tmp_path.iterdir()] == [INDEX_FILE]
    assert isinstance(faiss.read_index(str(tmp_path / INDEX_FILE)), faiss.IndexFlatIP)
    with eval_mode(model):
        expected = model.recommend(batch, k=10, exclude=ids, generator=torch.Generator())
        query = model.query(batch, generator=torch.Generator())
    found = ItemIndex.read(tmp_path, n_items=60).recommend(query, k=10, exclude=ids)
    assert found.items.tolist() == expected.items.tolist()
    torch.testing.assert_close(found.scores, expected.scores)


def test_models_that_score_otherwise_are_refused():
    with pytest.raises(ConfigError, match=r"Popularity has no item vectors .*its recommend gives"):
        ItemIndex.of_model(build("popularity", None, n_items=4))


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no index here; export it"):
        ItemIndex.read(tmp_path, n_items=5)
    ItemIndex.of_model(Vectors(torch.ones(5, 2))).write(tmp_path)
    with pytest.raises(ConfigError, match="holds 4 items, the dataset has 5"):
        ItemIndex.read(tmp_path, n_items=5)
    (tmp_path / INDEX_FILE).write_bytes(b"no index")
    with pytest.raises(ConfigError, match="faiss cannot read it"):
        ItemIndex.read(tmp_path, n_items=5)


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="install the extra 'cpu' or 'gpu'"):
        ItemIndex.of_model(Vectors(torch.ones(5, 2)))


def test_gpus_get_a_copy_that_answers_what_they_can(monkeypatch):
    """With stand-ins for the two functions of a GPU build; the copy remembers how deep it was searched."""
    depths = []

    class Copy:
        def __init__(self, index):
            self.index = index

        def search(self, states, depth):
            depths.append(depth)
            return self.index.search(states, depth)

    build_of_gpu = SimpleNamespace(IndexFlatIP=faiss.IndexFlatIP, get_num_gpus=lambda: 2, index_cpu_to_all_gpus=Copy)
    monkeypatch.setattr(index_module, "_faiss", lambda: build_of_gpu)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(3001, 4)).astype(np.float32))
    index = ItemIndex.of_model(Vectors(table))
    states = table[:2]
    for k in (3, 2500):
        assert_same(index.recommend(states, k=k), ItemIndex(index.index, 3000).recommend(states, k=k))
    assert depths == [4]
