"""Convolutional networks with skip connections (Zoph & Le 2017): `space` has the decisions, `spec` the network."""
