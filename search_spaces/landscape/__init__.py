"""Synthetic landscapes: spaces whose rewards are known functions, to compare controllers on."""
