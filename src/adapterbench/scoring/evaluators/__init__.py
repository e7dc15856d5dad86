"""Networks that score.

An evaluator is a module with `Params`, its fields of `score.evaluators` beside `kind`, and
`load(params, folders)`, which gives an `Evaluator`. Its file name is its `kind` in `params.yaml`.
"""
