"""Quantiles of the distributions that verdicts and intervals rest on.

In one place, and imported where they are asked for: scipy takes a third of a second, which every command would wait for.
"""


def student_t(freedom: float, p: float) -> float:
    """What Student's t with ν degrees of freedom is below with probability p."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def chi_square_above(freedom: int, p: float) -> float:
    """What χ² with ν degrees of freedom is above with probability p."""
    from scipy.special import chdtri

    return float(chdtri(freedom, p))


def beta_quantile(a: float, b: float, p: float) -> float:
    """What a variable with the beta distribution of a and b is below with probability p."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, p))
