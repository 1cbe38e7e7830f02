"""Names of the stand-ins for the quantizer's derivative in the backward pass (paper, section 8.3).

With a the projection, norm the l1 norm of the atom and dead_zone = beta * epsilon * norm:

- ``identity``: 1
- ``smooth`` (eq. 9): norm / (2 sigma) * [sech^2((a - dead_zone) / sigma) + sech^2((a + dead_zone) / sigma)]
- ``smooth-normalized`` (the published code): the same in units of norm,
  1 / (2 sigma) * [sech^2((a - dead_zone) / (norm sigma)) + sech^2((a + dead_zone) / (norm sigma))]

The position of a name in ``SURROGATES`` is its number in the compiled engines.
"""

SURROGATES = ("identity", "smooth", "smooth-normalized")
