"""Building blocks of the kernels: vectors, register tiles and scratch memory."""
