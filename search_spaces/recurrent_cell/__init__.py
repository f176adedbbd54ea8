"""Recurrent cells (Zoph & Le 2017): `space` has the decisions, `spec` the cell, `named` published cells."""
