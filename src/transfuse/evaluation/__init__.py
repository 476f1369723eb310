"""Opens the test split, once, when the fused model is final: predictions, scores, costs."""

from transfuse.evaluation.cost import inference_cost
from transfuse.evaluation.predict import TestPredictor
from transfuse.evaluation.score import Result, evaluate, write_predictions
from transfuse.evaluation.settings import Evaluation

__all__ = ["Evaluation", "Result", "TestPredictor", "evaluate", "inference_cost", "write_predictions"]
