"""What all training shares: epochs, updates of weights, checkpoints and early stopping. Open `trainer.py` first."""
