"""Language modeling: the task, the model, its training loop and its Keras form. Open `task.py` first."""
