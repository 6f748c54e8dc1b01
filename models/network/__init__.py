"""Encoder, head and new parameters in one module.

Rooms in reading order: encoder_source, scratch, new_parameters, entity_embedding, network.

Open: encoder_source, scratch, new_parameters, entity_embedding, network.
"""
