"""How long a test waits for an expected event."""

# Not a measure of speed: an expected event comes within seconds on a free machine, and within minutes on a busy one.
# Only a failing test waits this long.
SECONDS = 900.0
