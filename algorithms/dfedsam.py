"""DFedSAM: local steps that look for flat minima, then averaging with all neighbours.

Each local step is of sharpness-aware minimisation: the gradient is taken at y + ρ g/‖g‖, where g is the gradient at y
for the same batch. With ``gossip_steps`` above 1 it is DFedSAM-MGS, multiple gossip steps.

.. [1] Y. Shi, L. Shen, K. Wei, Y. Sun, B. Yuan, X. Wang, D. Tao, "Improving the model consistency of decentralized
   federated learning", ICML 2023, arXiv:2302.04083, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from algorithms.dfedavg import Dfedavg
from algorithms.options import radius
from algorithms.protocol import Place, Train, Vector


class Dfedsam(Dfedavg):
    """See the module."""

    options: ClassVar[Mapping[str, float | int | str]] = {**Dfedavg.options, "rho": 0.05}
    """Those of every round, and the radius ρ."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._rho = radius(self._options, "rho")

    def _ask(self, at: Vector) -> Train:
        return replace(super()._ask(at), rho=self._rho)
