"""Networks and the rules that train them, sampled together: decisions in `space`, what they give in `spec`."""
