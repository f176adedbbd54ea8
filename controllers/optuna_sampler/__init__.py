"""The controller that asks a sampler of Optuna: `controller` draws and learns, `samplers` knows Optuna's samplers,
`parameters` turns decisions into Optuna's parameters, and `storage` keeps the trials."""
