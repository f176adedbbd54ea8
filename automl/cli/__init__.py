"""The command line. Open `app.py` first: it declares the commands; `entry.py` is where the process starts."""
