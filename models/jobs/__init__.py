"""Plan and run jobs, from a request to stored results: a job is one variant, seed and fold.

Rooms in reading order: request, suitability, bases, setup, recipe, plan, spec, network_job,
ngram_job, job, tracking, engines, engine, processes, preloaded, worker, local, launch, parcel,
wire, ray_cluster, ray_node, ray_engine, choice, encoder_size, estimate, proposal, order, waves,
workers, fold, show, variants, saved, predict, offline, bundle_notebook, bundle, doctor.

Open: bases, bundle, doctor, fold, offline, show, variants, predict, plan, proposal, request, spec,
suitability, launch, local, choice, engine, workers.
"""
