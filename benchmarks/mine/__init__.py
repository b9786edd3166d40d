"""Kernels that users bring: ``--mine FILE:FUNCTION[@DIRECTION]``, and files to start from.

signature.py     what a kernel may take, and which operation its parameters fit
source.py        a file is read and checked, on the command line; C is compiled
loading.py       the kernel as a rung, in a worker process
template.py      files to start from, copied from templates/
"""
