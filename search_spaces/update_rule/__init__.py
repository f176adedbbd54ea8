"""Update rules (Bello et al. 2017): decisions in `space`, what they give in `spec`, published ones in `named`."""
