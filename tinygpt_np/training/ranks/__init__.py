"""Training on several ranks: processes started by MPI that work on one run together."""
