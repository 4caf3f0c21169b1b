"""API access, Job manifests, outcomes and diagnosis; knows no flows."""
