"""A model that uses tools: it calls one, reads what it returns, and goes on until it answers.

  llm-jax serve runs/quickstart --chat-template examples/plain.jinja
  python examples/tool_loop.py "How many days are from 2026-01-31 to 2026-03-01, times 24?"

Each turn of the model is JSON by a schema, so that every call can be parsed, whatever the model.
A call that fails tells the model why. After --steps turns without an answer, the loop gives up.
Needs: pip install openai
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import operator
from collections.abc import Callable
from typing import Any

from openai import OpenAI, OpenAIError

OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}


def calculate(expression: str) -> str:
    """The value of an arithmetic expression: numbers, + - * / % and brackets."""

    def value(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(operand))
        raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")

    return f"{value(ast.parse(expression, mode='eval')):.12g}"


def days_between(first: str, last: str) -> str:
    """The number of days from one date (YYYY-MM-DD) to another."""
    dates = [datetime.date.fromisoformat(text) for text in (first, last)]
    return str((dates[1] - dates[0]).days)


TOOLS: dict[str, tuple[Callable[..., str], list[str]]] = {
    "calculate": (calculate, ["expression"]),
    "days_between": (days_between, ["first", "last"]),
}


def schema() -> dict[str, Any]:
    """A turn of the model: a call of one tool, or the answer."""
    text = {"type": "string", "maxLength": 80}

    def turn(fields: dict[str, Any]) -> dict[str, Any]:
        required = [*fields]
        return {"type": "object", "properties": fields, "required": required,
                "additionalProperties": False}  # fmt: skip

    calls = [
        turn({"tool": {"const": name}, **dict.fromkeys(arguments, text)})
        for name, (_, arguments) in TOOLS.items()
    ]
    return {"anyOf": [*calls, turn({"answer": text})]}


def use(call: dict[str, str]) -> str:
    """What the called tool returns, or why it failed."""
    function, arguments = TOOLS[call["tool"]]
    try:
        return function(*(call[name] for name in arguments))
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        return f"failed: {error}"


def ask(client: OpenAI, model: str, question: str, steps: int) -> str | None:
    """The answer, or None if there is none after `steps` turns. Each turn is printed."""
    told = "\n".join(f"{name}: {function.__doc__}" for name, (function, _) in TOOLS.items())
    content = f"Use tools, then answer.\n{told}\nQuestion: {question}"
    messages: list[Any] = [{"role": "user", "content": content}]
    form = {"type": "json_schema", "json_schema": {"name": "turn", "schema": schema()}}
    for _ in range(steps):
        made = client.chat.completions.create(
            model=model, messages=messages, response_format=form, temperature=0
        )  # type: ignore[call-overload]
        said = made.choices[0].message.content or ""
        print(said)
        messages.append({"role": "assistant", "content": said})
        try:
            turn = json.loads(said)
        except json.JSONDecodeError:
            messages.append({"role": "user", "content": "failed: this turn was cut off"})
            continue
        if "answer" in turn:
            return turn["answer"]
        result = use(turn)
        print(f"  {result}")
        messages.append({"role": "user", "content": result})
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--key", default="none", help="the server's key, if it has one")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    client = OpenAI(base_url=args.url, api_key=args.key)
    try:
        model = client.models.list().data[0].id
        answered = ask(client, model, args.question, args.steps) is not None
    except OpenAIError as error:
        raise SystemExit(f"The server at {args.url}: {error}") from None
    if not answered:
        print(f"No answer after {args.steps} turns.")


if __name__ == "__main__":
    main()
