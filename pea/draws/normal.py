"""Random words to standard normal values, the same bits on every platform.

Only integer operations and the IEEE elementary operations (+ - * / sqrt, frexp) are used, because the last bits of a
``log`` or ``cos`` differ between platforms.

Source: Wichura 1988, algorithm AS 241 (PPND16, the inverse of the normal distribution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Rational approximations of AS 241, lowest power first.
_CENTRE = (
    (
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
        3.3430575583588128105e4, 2.5090809287301226727e3,
    ),
    (
        1.0, 4.2313330701600911252e1, 6.8718700749205790830e2,
        5.3941960214247511077e3, 2.1213794301586595867e4, 3.9307895800092710610e4,
        2.8729085735721942674e4, 5.2264952788528545610e3,
    ),
)  # fmt: skip
_TAIL = (
    (
        1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
        3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
        2.27238449892691845833e-2, 7.74545014278341407640e-4,
    ),
    (
        1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
        6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
        5.47593808499534494600e-4, 1.05075007164441684324e-9,
    ),
)  # fmt: skip
_BLOCK = 8192
"""Values worked on together: what is made of them on the way stays in the processor's cache."""


def standard_normal(words: npt.NDArray[np.uint64], count: int) -> FloatArray:
    """Turn random words into ``count`` standard normal values, two a word: float32 [count]."""
    halves = words.astype("<u8", copy=False).view("<u4")[:count]  # the low half of each word first
    values = np.empty(count, dtype=np.float32)
    for start in range(0, count, _BLOCK):
        uniform = (halves[start : start + _BLOCK].astype(np.float64) + 0.5) * 2.0**-32  # exact, and never 0 or 1
        values[start : start + _BLOCK] = _inverse_normal(uniform)
    return values


def _inverse_normal(uniform: Float64Array) -> Float64Array:
    """The normal quantile of values in [2**-33, 1 - 2**-33], to about 1e-15: float64 in, float64 out.

    AS 241 has a third approximation for values beyond exp(-25), which 32 random bits never give.
    """
    centred = uniform - 0.5
    result = centred * _ratio(_CENTRE, 0.180625 - centred * centred)
    outer = np.abs(centred) > 0.425
    if outer.any():
        side = centred[outer]
        radius = np.sqrt(-_log(np.where(side < 0, uniform[outer], 1.0 - uniform[outer])))
        result[outer] = _ratio(_TAIL, radius - 1.6) * np.where(side < 0, -1.0, 1.0)
    return result


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Float64Array) -> Float64Array:
    return np.divide(_polynomial(coefficients[0], x), _polynomial(coefficients[1], x))


def _polynomial(coefficients: Sequence[float], x: Float64Array) -> Float64Array:
    """Horner's rule in separate multiplications and additions (a fused one would round differently)."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        np.multiply(result, x, out=result)
        np.add(result, coefficient, out=result)
    return result


def _log(x: Float64Array) -> Float64Array:
    """Natural logarithm from frexp and the atanh series, the same bits on every platform."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = exponent - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial([1.0 / (2 * power + 1) for power in range(11)], s * s)
    result: Float64Array = exponent * 0.6931471805599453 + 2.0 * s * series
    return result
