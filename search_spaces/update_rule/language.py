"""The words of update rules: operands, unary and binary functions.

Source: Bello et al. 2017 (arXiv:1709.07417), section 3 and appendix, with the decays of their section 4.
"""

from __future__ import annotations

# g is the gradient, w the weight. m, v and y are bias-corrected running averages of g, g^2 and g^3.
OPERANDS = (
    "g",
    "g^2",
    "g^3",
    "m",
    "v",
    "y",
    "sign(g)",
    "sign(m)",
    "1",
    "2",
    "noise",  # from a normal distribution of standard deviation 0.01; all occurrences in one step are equal
    "0.0001w",
    "0.001w",
    "0.01w",
    "0.1w",
    "adam",  # the direction of Adam, m / sqrt(v)
    "rmsprop",  # the direction of RMSProp, g / sqrt(v)
    "momentum",  # m without the bias correction
)
DECAYS = ("linear_decay", "cosine_decay", "restart_decay")  # factors that go from 1 to 0 during training

# `drop p` sets each element to 0 with probability p; each `drop` of a rule has its own mask.
UNARY = (
    "x",
    "-x",
    "exp(x)",
    "log(abs(x))",
    "sqrt(abs(x))",
    "clip 1e-5",
    "clip 1e-4",
    "clip 1e-3",
    "drop 0.1",
    "drop 0.3",
    "drop 0.5",
    "sign(x)",
)
BINARY = ("x + y", "x - y", "x * y", "x / y", "x ^ y", "keep x")
COMMUTING = ("x + y", "x * y")
