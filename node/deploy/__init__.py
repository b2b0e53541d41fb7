"""Files by which others run and watch the peers of a plan: container engines, Kubernetes, Prometheus."""
