"""Codecs: rounded to nearest, once and for all, within range, and never the caller's own memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from algorithms.compression import CODECS

HALVES = {"half": torch.bfloat16, "half-float16": torch.float16}


def values(dtype: torch.dtype) -> torch.Tensor:
    """Numbers of every size that float32 has, with both signs, and zero."""
    random = np.random.default_rng(1)
    sizes = random.uniform(1, 2, 4000) * 2.0 ** random.integers(-40, 40, 4000)
    return torch.tensor([0.0, -0.0, *sizes, *-sizes], dtype=torch.float64).to(dtype)


def nearest(x: np.ndarray, bits: int) -> np.ndarray:
    """Float64 numbers with ``bits`` of precision, rounded to nearest, ties to even: by arithmetic, not by a cast."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bfloat16_rounds_to_the_nearest_of_eight_bits(dtype):
    x = values(dtype)
    rounded = CODECS["half"].round(x)
    assert rounded.dtype == dtype
    # float64 goes through float32 on its way to 16 bits, which may round twice: at most one unit in the last place
    exact = nearest(x.double().numpy(), 8)
    off = np.abs(rounded.double().numpy() - exact)
    assert (off == 0).mean() > 0.999
    assert (off <= np.abs(exact) * 2.0**-7).all()


def test_float16_rounds_to_the_nearest_of_eleven_bits_in_its_range():
    x = values(torch.float32)
    x = x[(x.abs() > 2.0**-14) & (x.abs() < 65504)]
    np.testing.assert_array_equal(CODECS["half-float16"].round(x).double(), nearest(x.double().numpy(), 11))


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_twice_is_rounding_once(name, dtype):
    once = CODECS[name].round(values(dtype))
    torch.testing.assert_close(CODECS[name].round(once), once, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(HALVES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_rounded_survives_the_wire(name, dtype):
    codec = CODECS[name]
    rounded = codec.round(values(dtype))
    assert codec.wire_dtype(dtype) == HALVES[name]
    torch.testing.assert_close(rounded.to(codec.wire_dtype(dtype)).to(dtype), rounded, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "largest"), [("half", 3.3895313892515355e38), ("half-float16", 65504.0)])
def test_out_of_range_becomes_the_largest_never_infinite(name, largest):
    x = torch.tensor([1e39, -1e39, 1e300, largest, -largest], dtype=torch.float64)
    expected = [largest, -largest, largest, largest, -largest]
    assert CODECS[name].round(x).tolist() == expected


@pytest.mark.parametrize("name", sorted(HALVES))
def test_the_vector_itself_is_not_written(name):
    x = values(torch.float32)
    before = x.clone()
    rounded = CODECS[name].round(x)
    rounded.add_(1)
    assert torch.equal(x, before)


def test_no_compression_is_the_vector_itself():
    x = values(torch.float64)
    assert CODECS["none"].round(x) is x
    assert CODECS["none"].wire_dtype(torch.float64) == torch.float64


def test_names_are_those_of_the_registry():
    assert {name: codec.name for name, codec in CODECS.items()} == {name: name for name in CODECS}
