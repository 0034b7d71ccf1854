"""The types beyond skops' own list that a model of this project may contain, and why each is trusted.

MLflow 3 saves scikit-learn models with skops, which stores data instead of a pickle and loads only the types
that somebody trusts. skops knows nearly all of scikit-learn; what it leaves out has to be named here,
reviewed, and travels with the model (`skops_trusted_types=`), so that whoever loads it need not know. A type
is trusted for what *constructing* it from foreign data can do, not for who wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "sklearn.tree._tree.Tree": (
        "The fitted tree inside every forest and boosted ensemble; skops 0.15 and newer leave it out. It is "
        "compiled code that reads node arrays, no Python is run: a forged file can at worst give wrong "
        "predictions or crash the process. Load only versions from the registry, whose artifacts are in a "
        "bucket that strangers cannot write."
    ),
}
TRUSTED_TYPES: tuple[str, ...] = tuple(REASONS)
