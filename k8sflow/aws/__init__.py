"""AWS Batch: API access, job definitions, queues, the outcome of jobs; knows nothing of flows."""
