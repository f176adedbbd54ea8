"""Controllers: they propose children and learn from their rewards (`base.Controller` is the contract)."""

CONTROLLERS = {  # resolved on use, so that listing them imports no TensorFlow
    "reinforce": "controllers.reinforce.controller:Reinforce",
    "ppo": "controllers.ppo:Ppo",
    "random": "controllers.random_search:RandomSearch",
}

PRESETS = {  # of each controller: names of settings for it; the first is the default
    "reinforce": "controllers.reinforce.presets:PRESETS",
    "ppo": "controllers.reinforce.presets:PPO_PRESETS",
    "random": "controllers.random_search:PRESETS",
}

SCALES = {  # of controllers with presets that also say how many batches are in flight, and how large
    "reinforce": "controllers.reinforce.presets:SCALES",
    "ppo": "controllers.reinforce.presets:PPO_SCALES",
}
