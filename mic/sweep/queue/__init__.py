"""The queue of trials that the workers of a sweep share."""
