"""OpenAI's HTTP interface to models, on FastAPI and uvicorn.

`server.py` listens and drains, `gate.py` lets requests in, `app.py` has the routes, `answers.py` goes
from a request to the engine and back.
"""
