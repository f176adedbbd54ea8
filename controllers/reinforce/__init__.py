"""REINFORCE over a recurrent policy: Zoph & Le 2017 (arXiv:1611.01578), sections 3.1 to 3.3."""
