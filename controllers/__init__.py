"""Controllers propose children and learn from their rewards; `base.Controller` is the contract."""

CONTROLLERS = {  # resolved on use, so that listing them imports no TensorFlow
    "reinforce": "automl.controllers.reinforce.controller:Reinforce",
    "ppo": "automl.controllers.ppo:Ppo",
    "evolution": "automl.controllers.evolution:Evolution",
    "optuna": "automl.controllers.optuna_sampler.controller:OptunaSampler",
    "random": "automl.controllers.random_search:RandomSearch",
    "surrogate": "automl.controllers.surrogate:Surrogate",
}

PRESETS = {  # named settings of each controller; the first is the default
    "reinforce": "automl.controllers.reinforce.presets:PRESETS",
    "ppo": "automl.controllers.reinforce.presets:PPO_PRESETS",
    "evolution": "automl.controllers.evolution:PRESETS",
    "optuna": "automl.controllers.optuna_sampler.controller:PRESETS",
    "random": "automl.controllers.random_search:PRESETS",
    "surrogate": "automl.controllers.surrogate:PRESETS",
}

EARLIER_DEFAULTS = {"reinforce": "plain", "ppo": "plain"}  # the presets that were the default in automl 0.1.0

NETWORKS = ("reinforce", "ppo")  # those with a network, which import TensorFlow

SCALES = {  # for presets that also set the number of batches in flight and their size
    "reinforce": "automl.controllers.reinforce.presets:SCALES",
    "ppo": "automl.controllers.reinforce.presets:PPO_SCALES",
}
