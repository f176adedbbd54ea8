"""A model of the reward: a Gaussian process over children that were trained, which ranks candidates before one is
trained. Open `screen.py` first."""
