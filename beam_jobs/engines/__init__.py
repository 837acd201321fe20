"""Where pipelines run, other than here: what a runner of Beam's needs to be told, its workers' start, its jobs."""
