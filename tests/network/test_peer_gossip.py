"""The same loop that a daemon runs, gossiping over a bad network in memory, under a virtual clock."""

from contextlib import asynccontextmanager

import numpy as np
import pytest
import torch
import trio

from algorithms.gossip import Gossip
from algorithms.protocol import Done, Finish, Meet, Part, PeerDown, PeerUp, Snapshot, Start, Trained
from node.clock import Clock
from node.draws import Draws
from node.members import Members
from node.peer import Manner, Peer
from node.training import BATCHES, Worker
from node.wire.memory import Faults, MemoryNetwork, Weather

UNIT_S = 0.5


@asynccontextmanager
async def gossips(make_world, pairs, faults, duration):
    """Peers that gossip over the network in memory."""
    network = MemoryNetwork(Weather(faults, np.random.default_rng(3)))
    names = sorted({end for pair in pairs for end in pair})
    peers = {}
    async with trio.open_nursery() as nursery:
        for name in names:
            place = make_world.place(name, pairs, draws := Draws(0, name))
            transport = await nursery.start(join, network, name)
            members = Members(transport, place.neighbours, draws("members"))
            trainer, worker = Steps(draws), Worker(at_once)
            manner = Manner(duration_s=duration * UNIT_S)
            peers[name] = Peer(
                Gossip(place), transport, members, trainer, draws, Clock(UNIT_S), None, manner, worker, Worker(at_once)
            )
            nursery.start_soon(members.run)
        yield peers, network
        nursery.cancel_scope.cancel()


async def join(network, name, *, task_status):
    async with network.join(name) as transport:
        task_status.started(transport)
        await trio.sleep_forever()


class Steps:
    """A trainer that walks at random."""

    def __init__(self, draws):
        self.random = draws(BATCHES)

    def train(self, job):
        return Trained(job.key, torch.from_numpy(self.random.normal(size=(job.steps, 5)).sum(0)), 0.0, job.steps)

    def snapshot(self):
        return Snapshot()


async def at_once(fn, *args):
    await trio.lowlevel.checkpoint()
    return fn(*args)


@pytest.mark.trio
async def test_peers_over_a_bad_network_conserve_the_ledger(autojump_clock, make_world, ring):
    faults = Faults(loss=0.2, duplicate=0.2, delay=0.02, reorder=0.2)
    async with gossips(make_world, ring(4), faults, duration=60.0) as (peers, _):
        async with trio.open_nursery() as nursery:
            for peer in peers.values():
                nursery.start_soon(peer.run)
        ledgers = torch.stack([peer.algorithm.ledger() for peer in peers.values()])
        exchanges = sum(peer.algorithm.counters()["exchanges"] for peer in peers.values())
        pending = [peer.algorithm.exchanges.unsettled() for peer in peers.values()]
    assert pending == [[]] * 4
    assert exchanges > 100
    assert ledgers.abs().max() > 0.1
    assert ledgers.sum(0).abs().max() < 1e-12


@pytest.mark.trio
async def test_the_algorithm_hears_of_neighbours_that_go_and_come(autojump_clock, make_world):
    async with gossips(make_world, [("n0", "n1")], Faults(delay=0.01), duration=40.0) as (peers, network):
        seen = []
        algorithm = peers["n0"].algorithm
        step = algorithm.step
        algorithm.step = lambda event, now: (seen.append(event), step(event, now))[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peers["n0"].run)
            await trio.sleep(5.0)
            inbox = network._inboxes.pop("n1")
            await trio.sleep(5.0)
            network._inboxes["n1"] = inbox
    changes = [event for event in seen if isinstance(event, (PeerUp, PeerDown))]
    assert changes == [PeerDown("n1"), PeerUp("n1"), PeerDown("n1"), PeerUp("n1")]
    assert algorithm.counters()["exchanges"] == 0, "nobody answers: only the network is there"


@pytest.mark.trio
async def test_who_is_met_is_reached_and_watched_until_it_parts(autojump_clock, make_world, monkeypatch):
    answers = {
        Start: [Meet("x", "10.0.0.5:7712"), Meet("y", "10.0.0.6:7712"), Meet("x", "10.0.0.7:7712"), Part("y")],
        Finish: [Done(torch.zeros(5))],
    }
    met = []
    async with gossips(make_world, [("n0", "n1")], Faults(), duration=0.5) as (peers, _):
        peer = peers["n0"]
        monkeypatch.setattr(peer.algorithm, "step", lambda event, now: answers.get(type(event), []))
        monkeypatch.setattr(peer._transport, "meet", lambda *each: met.append(each))
        await peer.run()
        assert met == [("x", "10.0.0.5:7712"), ("y", "10.0.0.6:7712"), ("x", "10.0.0.7:7712")]
        assert list(peer.members.states()) == ["n1", "x"]
