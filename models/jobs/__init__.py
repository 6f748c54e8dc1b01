"""From a request to results: `fold`, `show`, `predict`."""
