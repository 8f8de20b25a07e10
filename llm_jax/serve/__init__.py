"""OpenAI's HTTP interface to models, on FastAPI and uvicorn.

`listen.py` listens and drains, `connection.py` and `gate.py` let requests in, `app.py` has the
routes, `bodies.py` reads their fields, `to_engine.py` turns these into the engine's requests, and
`making.py` turns its tokens into texts.
"""
