"""The codecs by the names that users type."""

import torch

from algorithms.compression.half import Half
from algorithms.compression.none import Whole
from algorithms.protocol import Codec

CODECS: dict[str, Codec] = {
    "none": Whole(),
    "half": Half("half", torch.bfloat16),
    "half-float16": Half("half-float16", torch.float16),
}
