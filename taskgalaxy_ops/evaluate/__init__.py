"""What a checkpoint can do, before and after: log-likelihood ranking here, lmms-eval for the public benchmarks."""
