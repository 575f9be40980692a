"""The policy that a site begins with: what its study asks for, and nothing else."""

from fedseal.study import Contract


def default_policy(contract: Contract) -> str:
    """A policy that allows exactly the contract's plan, and cohorts no smaller than the contract's."""
    name = contract.privacy.plan
    evaluation = "[]" if contract.evaluation.epsilon is None else '["histogram"]'
    if contract.training.personalise != "none":
        evaluation = f'["{name}"]'
    members = '["none"]' if contract.training.strategy == "clustered" else "[]"
    return (
        "version = 2\n"
        f"[cohort]\nminimum = {contract.cohort.minimum}\ncolluders = {contract.cohort.colluders}\n"
        f'[releases]\nupdate = ["{name}"]\nmoments = ["{name}"]\nevaluation = {evaluation}\n'
        f"members = {members}\n"
    )
