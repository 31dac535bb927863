"""The seed paper's figures and tables, made again from our own runs, with what the paper states beside what we find.

One module per name, each with `make(Ask) -> Reproduction`; what a reproduction is, `reproduction` says. Where ours
differs from the paper, its statement says so and why; what cannot be computed again is said to be so, never filled in.
"""
