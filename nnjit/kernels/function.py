"""Names of kernel text that are a formula for Numba and a NumPy function for Python.

Nothing is registered until Numba meets the name, so importing one never imports Numba, and one
process can run a kernel both ways.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.scalar import Value

Formula = Callable[..., Value]


class Function:
    """A function of kernel text: its Python meaning when called, its formula when Numba meets it.

    args and result are dtype codes. Un-jitted it is silent (no floating-point warnings) and returns
    a scalar of its dtype. Numba converts the arguments to `args`.
    """

    def __init__(
        self,
        name: str,
        formula: Formula,
        meaning: Callable[..., Any],
        args: tuple[str, ...],
        result: str,
    ) -> None:
        self.__name__, self.__doc__ = name, formula.__doc__
        self.formula, self.meaning, self.args, self.result = formula, meaning, args, result
        self.as_result = bool if result == "b" else np.dtype(target.storage(result)).type
        self.as_args = tuple(np.dtype(target.storage(code)).type for code in args)

    def __repr__(self) -> str:
        return f"{self.__name__}({', '.join(self.args)}) -> {self.result}"

    def __call__(self, *values: Any) -> Any:
        with np.errstate(all="ignore"):
            given = [to(v) for to, v in zip(self.as_args, values, strict=True)]
            return self.as_result(self.meaning(*given))

    @functools.cached_property
    def _numba_type_(self) -> Any:
        """What Numba asks of a global it does not know; the first time, typing and code are
        registered.
        """
        from numba import types
        from numba.core.typing.templates import ConcreteTemplate, signature
        from numba.extending import lower_builtin

        numba_type = {code: getattr(types, target.storage(code)) for code in target.DTYPES}
        numba_type["b"] = types.boolean
        takes = [numba_type[code] for code in self.args]

        @lower_builtin(self, *takes)
        def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            pairs = zip(values, self.args, strict=True)
            return self.formula(*(Value(builder, v, code) for v, code in pairs)).v

        cases = {"key": self, "cases": [signature(numba_type[self.result], *takes)]}
        return types.Function(type(self.__name__, (ConcreteTemplate,), cases))
