"""Each round-based method against a plain loop: torch modules and optimisers, the same batches, W as a dense matrix."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from node.config import RunConfig
from node.draws import Draws
from node.shards import load_shard
from node.testbed.experiment import open_experiment
from node.testbed.record import read_states
from node.testbed.simulate import simulate
from node.testbed.simulated import Physics
from node.wire.memory import Faults
from topology.planning import build_plan

ROUNDS, LR, DECAY, WEIGHT_DECAY, BATCH = 4, 0.1, 0.9, 0.01, 8

METHODS = {
    "dpsgd": {"algorithm": "dpsgd"},
    "dfedavg": {"algorithm": "dfedavg", "local_steps": 3},
    "dfedavg, momentum kept": {"algorithm": "dfedavg", "local_steps": 3, "momentum": 0.8},
    "dfedavgm": {"algorithm": "dfedavgm"},
    "dfedsam": {"algorithm": "dfedsam", "options": {"rho": "0.2"}},
    "dfedsam-mgs": {"algorithm": "dfedsam", "options": {"rho": "0.2", "gossip_steps": "4"}},
    "chebyshev": {"algorithm": "dfedavg", "options": {"gossip_steps": "3", "acceleration": "chebyshev"}},
    "fedavg": {"algorithm": "fedavg"},
    "fedavg, sampled": {"algorithm": "fedavg", "options": {"samples": "2"}},
    "fedsam": {"algorithm": "fedsam", "options": {"rho": "0.2"}},
}


def plain(experiment, local_steps, momentum, fresh, rho, mixing, samples=0):
    """All models ``(n, d)`` after the rounds."""
    names = [node.name for node in experiment.plan.nodes]
    shards = [load_shard(experiment.data_dir, name) for name in names]
    draws = [Draws(experiment.config.seed, name)("batches") for name in names]
    modules = [experiment.task.build(experiment.config.seed).double() for _ in names]
    optimisers = {}
    server = Draws(experiment.config.seed, names[0])("sample")
    for t in range(ROUNDS):
        chosen = server.choice(len(names), samples, replace=False) if samples else range(len(names))
        if samples:
            mixing = np.zeros_like(mixing)
            mixing[:, chosen] = 1 / samples
        for i in chosen:
            module, shard = modules[i], shards[i]
            if i not in optimisers or fresh:
                optimisers[i] = torch.optim.SGD(
                    module.parameters(), lr=LR, momentum=momentum, weight_decay=WEIGHT_DECAY
                )
            optimiser = optimisers[i]
            optimiser.param_groups[0]["lr"] = LR * DECAY**t
            for rows in torch.from_numpy(draws[i].integers(len(shard), size=local_steps * BATCH)).view(-1, BATCH):
                optimiser.zero_grad()
                cross_entropy(module(shard.x[rows]), shard.y[rows]).backward()
                if rho:
                    kept = copy.deepcopy(module.state_dict())
                    norm = torch.sqrt(sum((p.grad**2).sum() for p in module.parameters()))
                    with torch.no_grad():
                        for p in module.parameters():
                            p += rho * p.grad / (norm + 1e-12)
                    optimiser.zero_grad()
                    cross_entropy(module(shard.x[rows]), shard.y[rows]).backward()
                    gradients = [p.grad.clone() for p in module.parameters()]
                    module.load_state_dict(kept)
                    for p, gradient in zip(module.parameters(), gradients, strict=True):
                        p.grad = gradient
                optimiser.step()
        stacked = torch.stack([torch.nn.utils.parameters_to_vector(m.parameters()).detach() for m in modules])
        for module, row in zip(modules, torch.from_numpy(mixing) @ stacked, strict=True):
            torch.nn.utils.vector_to_parameters(row, module.parameters())
    return torch.stack([torch.nn.utils.parameters_to_vector(m.parameters()).detach() for m in modules]).numpy()


def mixing_of(plan, algorithm, options):
    """What a round does to the peers' models, from the plan's weights alone."""
    n = len(plan.nodes)
    if algorithm.startswith("fed"):
        return np.full((n, n), 1 / n)
    position = {node.name: k for k, node in enumerate(plan.nodes)}
    matrix = np.eye(n)
    for edge in plan.edges:
        between = np.eye(n)[position[edge.a]] - np.eye(n)[position[edge.b]]
        matrix -= edge.weight * np.outer(between, between)
    steps = int(options.get("gossip_steps", 1))
    if options.get("acceleration") != "chebyshev":
        return np.linalg.matrix_power(matrix, steps)
    values, vectors = np.linalg.eigh(matrix)
    second = np.sort(abs(values))[-2]
    polynomial = np.polynomial.chebyshev.Chebyshev.basis(steps)
    return vectors @ np.diag(polynomial(values / second) / polynomial(1 / second)) @ vectors.T


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_method_is_the_plain_loop(name, batched, tmp_path):
    asked = METHODS[name]
    algorithm, options = asked["algorithm"], {"decay": str(DECAY), **asked.get("options", {})}
    common = {"lr": LR, "weight_decay": WEIGHT_DECAY, "batch_size": BATCH, "dtype": "float64", "rounds": ROUNDS}
    config = RunConfig(seed=3, **common, **{**asked, "options": {"hidden": "6", **options}})
    plan = build_plan("grid", 6, seed=0)
    experiment = open_experiment(plan, config, tmp_path / "run")
    simulate(experiment, Physics(Faults(delay=0.1), step_jitter=0.2), batched=batched)
    found = np.stack([read_states(tmp_path / "run")[node.name].model.numpy() for node in plan.nodes])
    local_steps = asked.get("local_steps", 1 if algorithm == "dpsgd" else 5)
    momentum = asked.get("momentum", 0.9 if algorithm == "dfedavgm" else 0.0)
    fresh, rho = algorithm == "dfedavgm", float(options.get("rho", 0.0))
    samples, mixing = int(options.get("samples", 0)), mixing_of(plan, algorithm, options)
    wanted = plain(experiment, local_steps, momentum, fresh, rho, mixing, samples)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
