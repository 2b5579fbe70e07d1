"""One model over several processes (tensor parallelism): each holds a slice of every layer."""
