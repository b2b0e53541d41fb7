"""MoDeST's door: a certified member that claims what can't be true, over mTLS."""

import pytest
import torch
import trio

from algorithms.protocol import AHEAD, Message, Reason
from algorithms.view import Standing
from node.config import RunConfig
from node.orders import Orders
from node.parts import Parts
from node.shards import prepare
from node.tasks import load_task
from node.wire.authority import make_certificates
from node.wire.bridge import open_bridge
from node.wire.grpc import open_grpc
from node.wire.transport import Undelivered
from topology.plan import save_plan
from topology.planning import build_plan

pytestmark = pytest.mark.trio

CONFIG = RunConfig(algorithm="modest", options={"hidden": "4"})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    save_plan(build_plan("line", 2), folder / "plan.json")
    prepare(load_task("digits", {"hidden": "4"}), ["n0", "n1"], "iid", 1.0, 0, folder / "data", spec="digits")
    make_certificates(["n0", "n1"], folder / "certs")
    return folder


@pytest.fixture
def make(home):
    """The parts of a peer, and how it is opened."""

    def build(name):
        parts = Parts(Orders(name, home / "data", plan=home / "plan.json", certs=home / "certs" / name), CONFIG)
        wire = {"guard": parts.guard, "identity": parts.identity, "observer": parts.meter, "plan": parts.plan}
        return parts, {"name": name, "bind": "127.0.0.1:0", "agreement": parts.open_agreement(), **wire}

    return build


def claims(parts):
    """Each message says one thing that is out of reach of what a peer at the start knows."""
    x = {"x": torch.zeros(parts.trainer.layout.size)}
    far, count = AHEAD + 1, {"expected": 1}
    return {
        "a far round": Message("ping", far),
        "a far model": Message("aggregated", far, x, count),
        "a member that was active then": Message("ping", 1, view={"n1": Standing(far, 1)}),
        "a counter": Message("standing", 1, view={"n0": Standing(1, far + 1)}),
        "a doubt": Message("trained", 1, x, count, {"n0": Standing(1, 0, doubted=far + 1)}),
    }


async def test_what_is_out_of_reach_is_refused_and_counted(make):
    receiver, ours = make("n0")
    sender, theirs = make("n1")
    async with open_bridge() as bridge, open_grpc(addresses={}, bridge=bridge, **ours) as n0:
        addresses = {"n0": f"127.0.0.1:{n0.port}"}
        async with open_grpc(addresses=addresses, bridge=bridge, **theirs) as n1:
            await n1.send("n0", Message("ping", AHEAD))
            for what, message in claims(sender).items():
                with pytest.raises(Undelivered) as caught:
                    await n1.send("n0", message)
                assert caught.value.reason is Reason.IMPLAUSIBLE, what
            with trio.fail_after(20):
                async for who, message in n0.receive():
                    assert (who, message.kind, message.number) == ("n1", "ping", AHEAD)
                    break
            assert receiver.guard.waiting == 0
    assert b'gradvine_refused_total{reason="implausible"} 5.0' in receiver.meter.pages()["/metrics"]().body
