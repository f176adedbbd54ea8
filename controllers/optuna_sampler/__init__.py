"""The controller that uses a sampler of Optuna: `controller` draws and learns, `samplers` lists Optuna's samplers,
`parameters` turns decisions into Optuna's parameters, and `storage` keeps the trials."""
