"""Evaluators, one module per kind.

A module has `Params`, its fields in `score.evaluators` besides `kind`, and
`load(params, folders)`, which returns an `Evaluator`. Its file name is its `kind` in `params.yaml`.
"""
