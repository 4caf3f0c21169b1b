"""The executor that runs each task as a job of AWS Batch."""
