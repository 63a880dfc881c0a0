"""An agent in a workflow run of GitHub Actions."""
