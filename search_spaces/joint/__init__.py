"""Networks and the rules that train them, sampled together: `space` has the decisions, `spec` the decoded child."""
