"""OpenAI's HTTP interface to models, on FastAPI and uvicorn.

`listen.py` listens and drains, `gate.py` lets requests in, `app.py` has the routes, `to_engine.py`
turns fields into the engine's requests, and `making.py` turns its tokens into texts.
"""
