"""Controllers: they propose children and learn from their rewards (`base.Controller` is the contract)."""

CONTROLLERS = {  # resolved on use, so that listing them imports no TensorFlow
    "reinforce": "controllers.reinforce.controller:Reinforce",
    "random": "controllers.random_search:RandomSearch",
}

PRESETS = {  # of each controller: names of settings for it; the first is the default
    "reinforce": "controllers.reinforce.presets:PRESETS",
    "random": "controllers.random_search:PRESETS",
}
