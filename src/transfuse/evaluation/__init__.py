"""Opens the test split, once, when the fused model is final: predictions, scores, costs."""

from transfuse.evaluation.analysis import Analysis, analyse
from transfuse.evaluation.balance_tables import write_balance_table
from transfuse.evaluation.cost import inference_cost
from transfuse.evaluation.normalized import write_normalized
from transfuse.evaluation.predict import TestPredictor
from transfuse.evaluation.score import Result, evaluate, write_predictions
from transfuse.evaluation.settings import Evaluation
from transfuse.evaluation.tables import write_tables
from transfuse.evaluation.weight_tables import write_weight_tables

__all__ = [
    "Analysis",
    "Evaluation",
    "Result",
    "TestPredictor",
    "analyse",
    "evaluate",
    "inference_cost",
    "write_balance_table",
    "write_normalized",
    "write_predictions",
    "write_tables",
    "write_weight_tables",
]
