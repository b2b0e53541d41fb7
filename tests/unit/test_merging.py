"""The mean of models, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from algorithms.merging import MERGINGS

MEAN = MERGINGS["mean"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_mean_is_numpys(dtype, count):
    random = np.random.default_rng(count)
    models = [torch.from_numpy(random.normal(size=50)).to(dtype) for _ in range(count)]
    exact = np.mean([model.double().numpy() for model in models], axis=0)
    merged = MEAN.merge(models)
    assert merged.dtype == dtype
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=torch.finfo(dtype).eps, atol=1e-15)


def test_mean_of_many_small_does_not_drown_in_float32():
    # added up in float32, 2^24 + 1 is 2^24: the ones would vanish
    models = [torch.tensor([2.0**24])] + [torch.tensor([1.0])] * 63
    assert MEAN.merge(iter(models)).item() == np.float32((2.0**24 + 63) / 64)


def test_models_are_left_alone():
    models = [torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 6.0], dtype=torch.float64)]
    merged = MEAN.merge(models)
    assert merged.tolist() == [2.0, 4.0]
    assert [model.tolist() for model in models] == [[1.0, 2.0], [3.0, 6.0]]
    (one,) = [torch.tensor([1.0], dtype=torch.float64)]
    MEAN.merge([one]).add_(1)
    assert one.item() == 1.0


def test_no_model_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        MEAN.merge([])


def test_two_ends_that_move_by_their_share_meet_at_the_mean():
    a, b = torch.tensor([8.0]), torch.tensor([2.0])
    w = a - b
    assert (a - MEAN.share * w).item() == (b + MEAN.share * w).item() == MEAN.merge([a, b]).item() == 5.0
