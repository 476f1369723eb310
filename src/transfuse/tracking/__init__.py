"""The record of a run, and its copy in MLflow. Importing this package does not import MLflow."""

from transfuse.tracking.base import RunKind, Tracker
from transfuse.tracking.mlflow import MlflowTracker
from transfuse.tracking.off import Off
from transfuse.tracking.record import RunRecord, versions

__all__ = ["MlflowTracker", "Off", "RunKind", "RunRecord", "Tracker", "versions"]
