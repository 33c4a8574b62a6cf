"""Language models that can be asked: over HTTP, in process, out of a recording; with a cache on disk.

    client = client_of(ClientConfig(kind="http", model="llama-3", base_url="http://localhost:8000/v1"))
    replies = client.ask_many([Request(prompt="The capital of France is", max_tokens=4)])

Nothing here knows of units or explanations (docs/clients.md).
"""
