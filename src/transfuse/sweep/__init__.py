"""What turns single runs into sweeps: Hydra's callback, the job, the end of a sweep."""

from transfuse.sweep.callback import SweepCallback

__all__ = ["SweepCallback"]
