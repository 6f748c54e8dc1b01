"""Pretraining by masked-language modelling: from scratch, or task-adaptive (TAPT).

Rooms in reading order: request, corpora, masking, masked_model, exposure, task, source, loop,
export, pretrain.

Open: pretrain, request, exposure.
"""
