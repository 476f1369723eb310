"""Weight fusion: several models of one architecture become one network of that architecture."""

from transfuse.strategy.weight_fusion.adamerging import AdaMerging
from transfuse.strategy.weight_fusion.aligned import Aligned
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.breadcrumbs import Breadcrumbs
from transfuse.strategy.weight_fusion.breadcrumbs_ties import BreadcrumbsTies
from transfuse.strategy.weight_fusion.consensus_ta import ConsensusTA, tall_masks
from transfuse.strategy.weight_fusion.dare_linear import DareLinear
from transfuse.strategy.weight_fusion.dare_ties import DareTies
from transfuse.strategy.weight_fusion.della import Della
from transfuse.strategy.weight_fusion.della_linear import DellaLinear
from transfuse.strategy.weight_fusion.ema import EMA
from transfuse.strategy.weight_fusion.emr import EMRMerging
from transfuse.strategy.weight_fusion.fisher import FisherMerging
from transfuse.strategy.weight_fusion.git_rebasin import GitReBasin
from transfuse.strategy.weight_fusion.greedy_soup import GreedySoup, greedy_selection
from transfuse.strategy.weight_fusion.iso_c import IsoC
from transfuse.strategy.weight_fusion.iso_cts import IsoCTS
from transfuse.strategy.weight_fusion.karcher import KarcherMean
from transfuse.strategy.weight_fusion.lawa import LAWA
from transfuse.strategy.weight_fusion.learned_soup import LearnedSoup
from transfuse.strategy.weight_fusion.library import merge
from transfuse.strategy.weight_fusion.linear import LinearMerge
from transfuse.strategy.weight_fusion.magmax import MagMax
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merge_many import MergeMany
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.model_stock import ModelStock
from transfuse.strategy.weight_fusion.multislerp import MultiSlerp
from transfuse.strategy.weight_fusion.network_fusion import Choice, NetworkFusion
from transfuse.strategy.weight_fusion.nuslerp import NuSlerp
from transfuse.strategy.weight_fusion.ot_fusion import OTFusion
from transfuse.strategy.weight_fusion.pcb import PCBMerging
from transfuse.strategy.weight_fusion.regmean import RegMean, SingularGramError
from transfuse.strategy.weight_fusion.repair import Repair
from transfuse.strategy.weight_fusion.requirements import HeadMismatchError, ModelCountError
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.sce import SCE
from transfuse.strategy.weight_fusion.searched import Searched
from transfuse.strategy.weight_fusion.selection import Selection
from transfuse.strategy.weight_fusion.slerp import Slerp
from transfuse.strategy.weight_fusion.swa import SWA
from transfuse.strategy.weight_fusion.swag import SWAG
from transfuse.strategy.weight_fusion.task_arithmetic import TaskArithmetic
from transfuse.strategy.weight_fusion.task_conditional import TaskConditional
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.ties import Ties
from transfuse.strategy.weight_fusion.trajectory_fusion import TrajectoryFusion
from transfuse.strategy.weight_fusion.tsv import TSVMerge
from transfuse.strategy.weight_fusion.uniform_soup import UniformSoup
from transfuse.strategy.weight_fusion.weight_sweep import SoupPath
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.strategy.weight_fusion.wise_ft import WiseFT
from transfuse.strategy.weight_fusion.wudi import WUDI
from transfuse.strategy.weight_fusion.zipit import ZipIt

__all__ = [
    "EMA",
    "LAWA",
    "SCE",
    "SWA",
    "SWAG",
    "WUDI",
    "AdaMerging",
    "Aligned",
    "Block",
    "Blocks",
    "Breadcrumbs",
    "BreadcrumbsTies",
    "Choice",
    "ConsensusTA",
    "DareLinear",
    "DareTies",
    "Della",
    "DellaLinear",
    "EMRMerging",
    "FisherMerging",
    "GitReBasin",
    "GreedySoup",
    "HeadMismatchError",
    "IsoC",
    "IsoCTS",
    "KarcherMean",
    "LearnedSoup",
    "LinearMerge",
    "MagMax",
    "Measured",
    "MergeMany",
    "ModelCountError",
    "ModelStock",
    "MultiSlerp",
    "NetworkFusion",
    "NuSlerp",
    "OTFusion",
    "PCBMerging",
    "RegMean",
    "Repair",
    "Scaled",
    "Searched",
    "Selection",
    "SingularGramError",
    "Slerp",
    "SoupPath",
    "TSVMerge",
    "TaskArithmetic",
    "TaskConditional",
    "TensorFusion",
    "Ties",
    "TrajectoryFusion",
    "UniformSoup",
    "WeightFusion",
    "Weighted",
    "WiseFT",
    "ZipIt",
    "greedy_selection",
    "merge",
    "tall_masks",
    "weighted_sum",
]
