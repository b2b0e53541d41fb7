"""The learning rules by the names that users type. A new rule is one file and one line here."""

from algorithms.acid import Acid
from algorithms.dadao import Dadao
from algorithms.dfedavg import Dfedavg, Dfedavgm
from algorithms.dfedsam import Dfedsam
from algorithms.dpsgd import Dpsgd
from algorithms.fedavg import Fedavg, Fedsam
from algorithms.gossip import Gossip
from algorithms.gossip_learning import GossipLearning
from algorithms.modest import Modest
from algorithms.noloco import Noloco
from algorithms.protocol import Algorithm
from algorithms.single_merge import SingleMerge

ALGORITHMS: dict[str, type[Algorithm]] = {
    "gossip": Gossip,
    "dadao": Dadao,
    "acid": Acid,
    "dpsgd": Dpsgd,
    "dfedavg": Dfedavg,
    "dfedavgm": Dfedavgm,
    "dfedsam": Dfedsam,
    "fedavg": Fedavg,
    "fedsam": Fedsam,
    "gossip-learning": GossipLearning,
    "modest": Modest,
    "single-merge": SingleMerge,
    "noloco": Noloco,
}
