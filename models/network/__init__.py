"""The network: resolved encoder (backbone), adapters (LoRA), head and new parameters.

Rooms in reading order: encoder_source, scratch, config, tokenizer, dropout, varlen, backbone,
adapters, new_parameters, entity_embedding, network, label_words.

Open: encoder_source, scratch, config, tokenizer, dropout, backbone, adapters, new_parameters,
entity_embedding, network, label_words.
"""
