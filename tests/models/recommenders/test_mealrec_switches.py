import pytest
import torch
from mealrec_cases import N_ITEMS, features, loss, loud, model, scores

from models.errors import ConfigError, MissingFeatureError
from models.recommenders.mealrec import Config, required_features
from models.registry import parse_config

# --- switches ---------------------------------------------------------------------------------------------------

#: Switch -> (its value, what must be set beside it).
CHANGES_PARAMETERS = {
    "frames": (4, {}),
    "content_width": (4, {}),
    "max_length": (7, {}),
    "d": (12, {}),
    "layers": (2, {}),
    "inner": (24, {}),
    "unet_channels": (24, {}),
    "use_tcd": (False, {}),
    "use_npd": (False, {}),
}
CHANGES_THE_LOSS = {
    "heads": (4, {}),
    "dropout": (0.5, {}),
    "gamma": (0.1, {}),
    "steps": (9, {}),
    "steps_preference": (9, {}),
    "frame_tokens": ("mean", {}),
    "train_unroll": (True, {}),
    "schedule": ("trunc_lin", {}),
    "lambda_t": (0.9, {}),
    "lambda_n": (0.9, {}),
    "cv_tokens": (True, {}),
    "train_t": ("stride5", {"sampler": "ddim", "sampler_stride": 5, "steps": 10}),
    "score": ("cos_tau", {}),
    "visual_noise_std": (0.5, {}),
    "use_video": (False, {}),
}
CHANGES_THE_SCORES = {
    "start": ("pure_noise", {}),
    "sampler": ("one_step", {}),
    "sampler_stride": (5, {"sampler": "ddim", "steps": 10}),
    "reverse_noise": ("fixedsmall", {}),
}
#: The tables and the backbones have tests of their own, ``detach_targets`` acts on gradients.
TESTED_ELSEWHERE = {
    "frames_table",
    "video_table",
    "text_table",
    "detach_targets",
    "backbone",
    "views",
    "text_fusion",
}


def test_every_switch_is_tested():
    assert {*CHANGES_PARAMETERS, *CHANGES_THE_LOSS, *CHANGES_THE_SCORES} == {*Config.model_fields} - TESTED_ELSEWHERE


@pytest.mark.parametrize("switch", CHANGES_PARAMETERS)
def test_switches_that_change_the_network(switch):
    def sizes(**switches):
        return {name: tuple(value.shape) for name, value in model(**switches).named_parameters()}

    value, beside = CHANGES_PARAMETERS[switch]
    assert sizes(**beside, **{switch: value}) != sizes(**beside)


@pytest.mark.parametrize("switch", CHANGES_THE_LOSS)
def test_switches_that_change_the_loss(switch):
    def total(**switches):
        mealrec = loud(**switches).train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return loss(mealrec).total.item()

    value, beside = CHANGES_THE_LOSS[switch]
    without = total(**beside)
    assert total(**beside) == without
    assert total(**{**beside, switch: value}) != pytest.approx(without, rel=1e-5)


@pytest.mark.parametrize("switch", CHANGES_THE_SCORES)
def test_switches_that_change_the_scores(switch):
    value, beside = CHANGES_THE_SCORES[switch]
    with_it, without = loud(**{**beside, switch: value}), loud(**beside)
    assert loss(with_it).total.item() == loss(without).total.item()  # of sampling only
    assert (scores(with_it) - scores(without)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"train_t": "stride5", "steps": 10}, "set sampler='ddim' and sampler_stride=5"),
        ({"sampler_stride": 5, "steps": 10}, "only sampler='ddim' can skip steps"),
        ({"sampler": "ddim", "sampler_stride": 3, "steps": 10}, "must divide steps=10"),
        ({"sampler": "ddim", "sampler_stride": 5, "steps_preference": 9}, "must divide steps_preference=9"),
        ({"use_video": False, "visual_noise_std": 0.1}, "visual_noise_std: .*use_video=false leaves no frames"),
        ({"unet_channels": 12}, "unet_channels: Input should be a multiple of 8"),
        ({"views": {"weight": 0.2}}, "views: .*only backbone='cl4srec' makes views"),
        ({"text_fusion": {"experts": 4}, "backbone": "cl4srec"}, "text_fusion: .*only backbone='tedrec' fuses texts"),
    ],
)
def test_switches_that_do_not_fit_are_refused(switches, message):
    with pytest.raises(ConfigError, match=message):
        parse_config("mealrec", switches)


# --- features ---------------------------------------------------------------------------------------------------


def test_required_features():
    names = {"frames_table": "vit.frames", "video_table": "vit", "text_table": "glove"}
    assert set(required_features(Config())) == {"videomae.frames", "videomae", "bert"}
    assert set(required_features(Config(**names))) == {"vit.frames", "vit", "glove"}
    assert set(required_features(Config(**names, use_tcd=False))) == {"vit.frames", "glove"}


@pytest.mark.parametrize("absent", ["videomae.frames", "videomae", "bert"])
def test_a_missing_table_is_named(absent):
    tables = features()
    del tables[absent]
    with pytest.raises(MissingFeatureError, match=f"needs the feature table '{absent}'"):
        model(tables=tables)


def test_without_the_video_no_frame_and_no_global_vector_is_read():
    other = features()
    for name in ("videomae", "videomae.frames"):
        other[name] = other[name].flip(-1) * 3
    for use_video in (False, True):
        mealrec, changed = model(use_video=use_video), model(use_video=use_video, tables=other)
        assert torch.equal(scores(mealrec), scores(changed)) is not use_video
        assert torch.equal(loss(mealrec).total, loss(changed).total) is not use_video
    texts = features()
    texts["bert"] = texts["bert"].flip(-1)
    assert not torch.equal(scores(model(use_video=False)), scores(model(use_video=False, tables=texts)))


def test_noise_on_the_frames_leaves_the_first_weights_alone():
    noisy, plain = model(visual_noise_std=0.5), model()
    assert not torch.equal(noisy.tables["frames"].values, plain.tables["frames"].values)
    assert not torch.equal(noisy.tables["video"].values, plain.tables["video"].values)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in noisy.state_dict().items())


def test_without_the_frame_diffusion_no_global_vectors_are_needed():
    tables = features()
    del tables["videomae"]
    assert scores(model(tables=tables, use_tcd=False)).isfinite().all()


def test_too_few_frames_are_refused():
    with pytest.raises(MissingFeatureError, match=r"\[items, frames >= 5, width\], got \[13, 3, 8\]; .* set frames=3"):
        model(tables=features(frames=3))


def test_a_table_without_frames_is_refused():
    tables = features()
    with pytest.raises(MissingFeatureError, match=r"\[items, frames >= 5, width\], got \[13, 8\]"):
        model(tables={**tables, "videomae.frames": tables["videomae"]})


def test_a_text_table_with_frames_is_refused():
    tables = features()
    with pytest.raises(MissingFeatureError, match=r"'bert': expected \[items, width\], got \[13, 5, 8\]"):
        model(tables={**tables, "bert": tables["videomae.frames"]})


def test_global_vectors_of_another_width_are_refused():
    tables = features()
    with pytest.raises(MissingFeatureError, match=r"'videomae': expected \[items, 8\].*got \[13, 6\]"):
        model(tables={**tables, "videomae": tables["bert"]})


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 8])
def test_any_number_of_frames(frames):
    mealrec = model(tables=features(frames=frames), frames=frames)
    assert loss(mealrec).total.isfinite()
    assert scores(mealrec).isfinite().all()


def test_the_frames_around_the_centre_are_taken():
    """Of seven frames, 3 are numbers 2 to 4."""
    tables = features(frames=7)
    middle = {**tables, "videomae.frames": tables["videomae.frames"][:, 2:5]}
    expected, found = model(tables=middle, frames=3), model(tables=tables, frames=3)
    assert torch.equal(found.tables["frames"].values, expected.tables["frames"].values)


def test_visual_noise_reaches_the_visual_tables_only():
    """Deviation .5 on columns of deviation 1; rows without content stay empty."""
    clean, noisy = model(), model(visual_noise_std=0.5)
    assert torch.equal(noisy.tables["text"].values, clean.tables["text"].values)
    for name in ("frames", "video"):
        added = noisy.tables[name].table - clean.tables[name].table
        assert (added[[0, N_ITEMS]] == 0).all()
        assert float(added[1:N_ITEMS].std()) == pytest.approx(0.5, rel=0.2)
        assert float(clean.tables[name].table[1:N_ITEMS].std()) == pytest.approx(1.0, abs=0.02)
