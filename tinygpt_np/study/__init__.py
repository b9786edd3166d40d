"""Reads the source of a forward and of its backward, runs both line by line, pairs and proves them.

source and trace read and run a function; truth measures what each gradient should be; pairing finds
which line a backward line undoes; prover and blame judge; sheet puts the two sides together, and
terminal and page show them. targets and own say what there is to study.
"""
