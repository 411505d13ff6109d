from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vae_lab.data.arrays import (
    BINARIZATIONS,
    ImageData,
    Minibatches,
    Source,
    Split,
    cut,
    shuffled,
)
from vae_lab.errors import ConfigError, require_choice, require_integer

COMMON = {"batch_size": 5, "binarization": "none", "train_size": None, "split_seed": 0}


class Ramp(ImageData):
    """1,000 images of 4 x 4 grey values; the last 200 for test, 100 before them for validation."""

    name = "ramp"
    image_shape = (1, 4, 4)
    divisor = 255

    def load(self) -> Source:
        pixels = np.random.default_rng(0).integers(0, 256, (1000, 4, 4), dtype=np.uint8)
        return Source(pixels, np.arange(1000) % 10, cut(torch.arange(1000), val=100, test=200))


class SizedRamp(Ramp):
    """Says what it knows before it reads."""

    train_capacity = 700

    def load(self) -> Source:
        raise AssertionError("read before its keys were checked")


def ramp(**changes: Any) -> Ramp:
    return Ramp(**(COMMON | changes))


def minibatches(part: Split, **changes: Any) -> Minibatches:
    return Minibatches(part, **({"batch_size": 10, "seed": 0, "binarization": "none"} | changes))


# The data set.


def test_values_are_divided_exactly():
    data = ramp()
    expected = torch.from_numpy(data.load().images[:700].astype(np.float32)) / 255
    assert torch.equal(data.splits["train"].images[:, 0], expected)
    assert data.scale == "x/255"


def test_train_size_takes_the_first_of_the_train_part_only():
    data = ramp(train_size=30)
    assert torch.equal(data.splits["train"].indices, torch.arange(30))
    assert len(data.splits["val"]) == 100 and len(data.splits["test"]) == 200


def test_split_hash_is_stable_and_depends_on_the_parts():
    assert ramp().split_hash == ramp(binarization="static").split_hash == "e6003ce2e3cd"
    assert ramp(train_size=30).split_hash != ramp().split_hash


def test_threshold_binarises_every_part():
    grey, binary = ramp().splits, ramp(binarization="threshold").splits
    for name, part in binary.items():
        assert torch.equal(part.images, (grey[name].images > 0.5).float())


@pytest.mark.parametrize("binarization", ["static", "dynamic"])
def test_binary_images_are_draws_from_the_grey_ones(binarization):
    grey, binary = ramp(), ramp(binarization=binarization)
    for name in ("train", "val", "test"):
        p, x = grey.splits[name].images, binary.measured(name).images
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert (x[p == 0] == 0).all() and (x[p == 1] == 1).all()
        standard_error = (p * (1 - p)).sum().sqrt() / p.numel()
        assert (x.mean() - p.mean()).abs() < 6 * standard_error


def test_static_binarisation_depends_on_the_split_seed_alone():
    first, again, other = (ramp(binarization="static", split_seed=seed).splits for seed in (0, 0, 1))
    for name in first:
        assert torch.equal(first[name].images, again[name].images)
        assert not torch.equal(first[name].images, other[name].images)
    subset = ramp(binarization="static", train_size=30).splits["train"].images
    assert torch.equal(subset, first["train"].images[:30])


def test_dynamic_binarisation_leaves_train_grey_and_fixes_the_other_parts():
    data, other = ramp(binarization="dynamic"), ramp(binarization="dynamic", split_seed=1)
    assert torch.equal(data.splits["train"].images, ramp().splits["train"].images)
    for name in ("val", "test"):
        assert torch.equal(data.splits[name].images, other.splits[name].images)
        assert data.measured(name) is data.splits[name]
    assert torch.equal(data.measured("train").images, other.measured("train").images)


def test_classes_choose_images_of_every_split_before_train_size_does():
    data, whole = ramp(classes=[3, 0], train_size=50), ramp()
    for name, part in data.splits.items():
        every = whole.splits[name]
        assert every.labels is not None
        chosen = torch.isin(every.labels, torch.tensor([0, 3]))
        assert torch.equal(part.indices, every.indices[chosen][:50])
        assert torch.equal(part.images, every.images[chosen][:50])
    assert data.num_train == 50 and ramp(classes=[3, 0]).num_train == 140
    assert data.fingerprint["pixels"] == whole.fingerprint["pixels"], "the files are the same"
    assert data.fingerprint["split"] != whole.fingerprint["split"] and data.split_hash != whole.split_hash


def test_classes_need_labels_that_are_there():
    with pytest.raises(
        ConfigError, match=r"data\.classes must name labels of ramp, got 10: its train split has 0, 1, "
    ):
        _ = ramp(classes=[0, 10]).splits
    data = ramp(classes=[0])
    unlabelled = replace(data.load(), labels=None)
    data.load = lambda: unlabelled
    with pytest.raises(
        ConfigError, match=r"classes must be null for ramp, got \[0\]: the images of its train split have"
    ):
        _ = data.splits
    with pytest.raises(ConfigError, match=r"data\.batch_size must be <= 70, got 71"):
        _ = ramp(classes=[0], batch_size=71).splits


def test_whole_data_set_has_all_images_in_the_order_of_the_files():
    part = ramp(train_size=30).whole()
    assert torch.equal(part.indices, torch.arange(1000)) and part.labels.tolist() == [i % 10 for i in range(1000)]
    assert torch.equal(part.images[700:800], ramp().splits["val"].images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": []}, r"data\.classes must be different labels such as \[0,1\], or null for all, got \[\]"),
        ({"classes": [1, 1]}, r"data\.classes must be different labels"),
        ({"classes": [-1]}, r"each of data\.classes must be an integer >= 0, got -1"),
        ({"batch_size": 0}, r"data\.batch_size must be an integer >= 1, got 0"),
        ({"train_size": 0}, r"data\.train_size must be an integer >= 1 or null, got 0"),
        ({"split_seed": -1}, r"data\.split_seed must be an integer >= 0, got -1"),
        ({"binarization": "statik"}, r"data\.binarization must be one of none, .*did you mean static\?"),
        ({"train_size": 701}, r"data\.train_size must be <= 700, got 701"),
        ({"batch_size": 701}, r"data\.batch_size must be <= 700, got 701"),
        ({"train_size": 50, "batch_size": 51}, r"data\.batch_size must be <= 50, got 51"),
    ],
)
def test_impossible_keys_are_refused_before_loading(changes, message):
    with pytest.raises(ValueError, match=message):
        SizedRamp(**(COMMON | changes))


def test_sizes_that_only_the_files_say_are_refused_when_they_are_read():
    with pytest.raises(ValueError, match=r"data\.train_size must be <= 700, got 701"):
        _ = ramp(train_size=701).splits


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_require_integer_refuses_what_only_looks_like_one(value):
    with pytest.raises(ValueError, match=r"key must be an integer in 0 \.\.\. 3, got"):
        require_integer("key", value, minimum=0, maximum=3)


def test_require_integer_honours_zero_limits():
    require_integer("key", 0, minimum=0, maximum=0)
    with pytest.raises(ValueError, match="key must be"):
        require_integer("key", 1, minimum=0, maximum=0)


def test_require_choice_takes_null_for_what_it_is():
    with pytest.raises(ValueError, match=r"got null: did you mean none\?"):
        require_choice("key", None, BINARIZATIONS)


def test_cut_leaves_out_empty_parts():
    assert list(cut(shuffled(5, 0), val=0, test=2)) == ["train", "test"]


# Minibatches.


def test_every_datapoint_comes_at_most_once_an_epoch(grey_split):
    stream = minibatches(grey_split)
    assert (stream.per_epoch, stream.num_datapoints) == (10, 103)
    index = stream.block(10, 10).index
    assert index.shape == (10, 10) and len(index.unique()) == 100


def test_ranks_share_every_minibatch(grey_split):
    alone = minibatches(grey_split, batch_size=12).block(3, 9)
    shares = [minibatches(grey_split, batch_size=12, rank=rank, num_ranks=3).block(3, 9) for rank in range(3)]
    assert torch.equal(torch.cat([share.index for share in shares], dim=1), alone.index)
    assert torch.equal(torch.cat([share.x for share in shares], dim=1), alone.x)


@pytest.mark.parametrize("binarization", ["none", "dynamic"])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_partition_into_blocks_does_not_matter(grey_split, binarization, num_ranks):
    def stream() -> Minibatches:
        return minibatches(grey_split, binarization=binarization, rank=num_ranks - 1, num_ranks=num_ranks)

    whole = stream().block(0, 37)
    blocks = stream()
    splits = [blocks.block(first, count) for first, count in ((0, 1), (1, 7), (8, 20), (28, 9))]
    assert torch.equal(torch.cat([part.x for part in splits]), whole.x)
    assert torch.equal(torch.cat([part.index for part in splits]), whole.index)
    assert torch.equal(stream().block(25, 2).x, whole.x[25:27])


def test_images_belong_to_their_rows(grey_split):
    block = minibatches(grey_split).block(7, 8)
    assert torch.equal(block.x, grey_split.images[block.index])


def test_the_order_depends_on_seed_and_epoch(grey_split):
    epochs = minibatches(grey_split).block(0, 20).index.view(2, 100)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(minibatches(grey_split, seed=1).block(0, 10).index.flatten(), epochs[0])
    assert torch.equal(minibatches(grey_split).block(0, 20).index.view(2, 100), epochs)


def test_a_whole_part_can_be_one_minibatch(grey_split):
    index = minibatches(grey_split, batch_size=103).block(0, 2).index
    assert torch.equal(index.sort(dim=1).values, torch.arange(103).expand(2, 103))


def test_dynamic_binarisation_is_independent_of_ranks_and_anew_every_time(grey_split):
    alone = minibatches(grey_split, binarization="dynamic").block(0, 20)
    shares = [minibatches(grey_split, binarization="dynamic", rank=rank, num_ranks=2).block(0, 20) for rank in (0, 1)]
    assert torch.equal(torch.cat([share.x for share in shares], dim=1), alone.x)
    assert set(alone.x.unique().tolist()) == {0.0, 1.0}
    presented = torch.full((2, 103, 1, 2, 3), -1.0)
    for epoch in (0, 1):
        rows = slice(10 * epoch, 10 * epoch + 10)
        presented[epoch, alone.index[rows].flatten()] = alone.x[rows].flatten(0, 1)
    assert not torch.equal(presented[0], presented[1])


def test_dynamic_binarisation_has_the_grey_value_as_its_mean(grey_split):
    flat = replace(grey_split, images=torch.full_like(grey_split.images, 0.3))
    x = minibatches(flat, binarization="dynamic").block(0, 500).x
    assert abs(x.mean() - 0.3) < 6 * (0.3 * 0.7 / x.numel()) ** 0.5


def test_making_minibatches_leaves_global_randomness_and_the_part_alone(grey_split):
    state, images = torch.get_rng_state(), grey_split.images.clone()
    minibatches(grey_split, binarization="dynamic").block(0, 20)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(grey_split.images, images)


def test_to_keeps_order_and_images(grey_split):
    stream = minibatches(grey_split)
    before = stream.block(3, 4)
    after = stream.to("cpu").block(3, 4)
    assert torch.equal(before.x, after.x) and torch.equal(before.index, after.index)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 10, "num_ranks": 3},
            r"data\.batch_size must be a multiple of the 3 processes.*choose 9",
        ),
        ({"batch_size": 2, "num_ranks": 3}, r"choose 3"),
    ],
)
def test_impossible_minibatches_are_refused(grey_split, changes, message):
    with pytest.raises(ValueError, match=message):
        minibatches(grey_split, **changes)
