"""The FLOPs that an exponential and a hyperbolic tangent count as.

They are those of the polynomials of tinygpt_np/compiled/kernels/elementary.py: a multiply-add
counts as two, bounding the argument as two comparisons, operations on the bits of a number as
none. Any other operation on an element counts as one FLOP: also a division or a root, although
these take longer than a multiply-add, and a logarithm, of which there is one per row.
"""

EXP_FLOPS = 23
TANH_FLOPS = 26
