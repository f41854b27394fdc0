import torch

from models.sequences.seeding import Stream, stream_generator, stream_seed


def test_every_name_has_its_own_stream():
    names = [(seed, stream, *path) for seed in (0, 1) for stream in Stream for path in ((), (0,), (1,), (0, 1), (1, 0))]
    seeds = {stream_seed(*name) for name in names}
    assert len(seeds) == len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_same_name_gives_the_same_draws():
    draws = [torch.rand(4, generator=stream_generator(3, Stream.STEP, 2, 5)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
