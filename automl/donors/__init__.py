"""Earlier searches whose children a new search receives (`--warm-start`).

`references.py` reads what the user names, `reading.py` the children from their stores. `receiving.py` finds these
children in the new search's space, `telling.py` tells them to its controller. `describing.py` says what was received.
"""
