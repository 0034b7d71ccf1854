"""Credit risk with scikit-learn: grid search, evidence and one registered model.

`examples.credit_risk.train` trains and tracks by hand; `examples.credit_risk.autolog` lets MLflow do it. The
two are never mixed: autolog would log every fit of the search a second time.
"""
