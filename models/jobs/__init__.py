"""From a request to results: a job is one variant, one seed and one fold.

Rooms in reading order: request, suitability, setup, recipe, plan, spec, network_job, linear_job,
job, workers, fold, show, variants, predict, doctor.

Open: doctor, fold, show, variants, predict, plan, request, spec, suitability, workers.
"""
