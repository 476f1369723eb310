"""CMA-ES over a few numbers, by Optuna."""

from __future__ import annotations

from collections.abc import Callable


def cma_es(objective: Callable[[tuple[float, ...]], float | None], *, dimension: int, trials: int, seed: int) -> None:
    """Calls `objective` at positions in [-1, 1]^D, the first of which is 0, so as to make its values small.

    A single number, for which there is no covariance, is searched by the tree-structured Parzen estimator.

    Args:
        objective: returns the value, or None where there is none; such a position is passed over.
        dimension: D >= 1.
        trials: number of calls, >= 1.
        seed: of the search.

    Example:
        >>> found = []
        >>> cma_es(lambda at: found.append(at) or sum(x * x for x in at), dimension=2, trials=5, seed=0)
        >>> len(found), found[0]
        (5, (0.0, 0.0))
    """
    import optuna

    seed %= 2**32  # what NumPy's older generators take
    names = [f"x{index}" for index in range(dimension)]
    sampler = optuna.samplers.CmaEsSampler(
        seed=seed,
        independent_sampler=optuna.samplers.TPESampler(seed=seed),
        warn_independent_sampling=False,
    )
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler)
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.enqueue_trial(dict.fromkeys(names, 0.0))
    for _ in range(trials):
        trial = study.ask()
        value = objective(tuple(trial.suggest_float(name, -1.0, 1.0) for name in names))
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, value)
