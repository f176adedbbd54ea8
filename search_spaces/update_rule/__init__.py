"""Update rules (Bello et al. 2017): `space` has the decisions, `spec` the rule, `named` published rules."""
