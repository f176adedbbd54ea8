"""Update rules judged by how well small networks learn with them, many at a time (Bello et al. 2017).

Open `task.py` first; `population.py` trains many rules in one compiled function.
"""
