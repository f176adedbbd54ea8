"""Tasks that come with the project."""

TASKS = {  # resolved on use, so that listing them imports no TensorFlow
    "digits": "child_trainers.tasks.image_classification:ImageClassification",
    "cifar10": "child_trainers.tasks.image_classification:ImageClassification",
    "npz": "child_trainers.tasks.image_classification:ImageClassification",
}
