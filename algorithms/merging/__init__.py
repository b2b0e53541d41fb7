"""The merging rules by the names that users type."""

from algorithms.merging.mean import Mean
from algorithms.protocol import Merging

MERGINGS: dict[str, Merging] = {"mean": Mean()}
