"""The rows of a table: one decision for each column."""
