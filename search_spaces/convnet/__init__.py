"""Convolutional networks with skip connections (Zoph & Le 2017): decisions in `space`, what they give in `spec`."""
