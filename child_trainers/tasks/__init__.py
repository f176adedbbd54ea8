"""Tasks that come with the project."""

TASKS = {  # resolved on use, so that listing them imports no TensorFlow
    "digits": "child_trainers.tasks.image_classification:ImageClassification",
    "cifar10": "child_trainers.tasks.image_classification:ImageClassification",
    "npz": "child_trainers.tasks.image_classification:ImageClassification",
    "ptb": "child_trainers.tasks.language_modeling:LanguageModeling",
    "pydoc": "child_trainers.tasks.language_modeling:LanguageModeling",
    "text": "child_trainers.tasks.language_modeling:LanguageModeling",
}

OF_FILES = ("npz", "text")  # written with the file's path, as in `npz:PATH`

DEFAULTS = {"convnet": "digits", "recurrent-cell": "pydoc"}  # of each space: one that needs no download


def kind_of(name: str) -> str:
    """The task's name without the path of its file."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in OF_FILES else name
