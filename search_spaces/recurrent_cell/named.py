"""Published cells by name."""

from automl.search_spaces.recurrent_cell.spec import RecurrentCell
from automl.search_spaces.recurrent_cell.tree import CellNode

# The base-8 cell of Zoph & Le 2017, as its authors published it in TensorFlow (contrib and Addons, NASCell).
NASCELL = RecurrentCell(
    nodes=(
        CellNode("add", "sigmoid"),
        CellNode("add", "relu"),
        CellNode("add", "sigmoid"),
        CellNode("multiply", "relu"),
        CellNode("add", "tanh"),
        CellNode("add", "sigmoid"),
        CellNode("add", "tanh"),
        CellNode("add", "sigmoid"),
        CellNode("multiply", "tanh"),
        CellNode("add", "tanh"),
        CellNode("multiply", "tanh"),
        CellNode("add", "sigmoid"),
        CellNode("multiply", "identity"),
        CellNode("add", "tanh"),
        CellNode("multiply", "tanh"),
    ),
    injection=CellNode("add", "tanh"),
    memory_node=12,
    injection_node=8,
)
