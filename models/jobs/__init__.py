"""Plan and run jobs, from a request to stored results: a job is one variant, seed and fold.

Rooms in reading order: request, suitability, setup, recipe, plan, spec, network_job, linear_job,
job, tracking, engines, engine, worker, local, launch, workers, estimate, fold, show, variants,
saved, predict, offline, bundle_notebook, bundle, doctor.

Open: bundle, doctor, fold, offline, show, variants, predict, plan, request, spec, suitability,
launch, local, workers.
"""
