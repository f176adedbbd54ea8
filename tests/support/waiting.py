"""How long a test waits for what must come."""

# No measure of speed: what is awaited comes within seconds on a free machine and within minutes on one that does six
# other things. Only a test of something broken waits this long.
SECONDS = 900.0
