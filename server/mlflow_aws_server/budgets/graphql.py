"""What a GraphQL document would cost, judged before MLflow reads it.

MLflow has limits of its own (10 levels, 1,000 selections, 10 aliases at a level); this bounds what comes
before them, its parser, and what they do not look at: the questions inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
    parse,
    value_from_ast_untyped,
)

from mlflow_aws_server import limits

_NO_BRACKET = re.compile(
    r'"""(?:\\"""|[^"]|"(?!""))*"""|"(?:\\.|[^"\\\n])*"|#[^\n\r]*|[^(\[{}\])"#]+', re.DOTALL
)
_STEP = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def check(request: Any, judge: Callable[[Iterable[tuple[str, Any]]], None]) -> None:
    """Refuse a document that asks for too much; `judge` refuses too much in the fields of its questions.

    What is no document is left to MLflow's refusal.

    Raises:
        LimitError: it is beyond a limit.
    """
    if isinstance(request, list):
        limits.GRAPHQL_BATCH.check(len(request))
    if not isinstance(request, dict) or not isinstance(text := request.get("query"), str):
        return
    limits.GRAPHQL_TEXT.check(len(text))
    # Before the parser, which calls itself for each level.
    limits.GRAPHQL_DEPTH.check(max(accumulate(_STEP.get(x, 0) for x in _NO_BRACKET.sub("", text)), default=0))
    try:
        document = parse(text, no_location=True, max_tokens=limits.GRAPHQL_TOKENS.most)
    except GraphQLError as error:
        if "tokens" in str(error):
            limits.GRAPHQL_TOKENS.check(limits.GRAPHQL_TOKENS.most + 1)
        return
    given = request.get("variables")
    questions = list(_questions(document, given if isinstance(given, dict) else {}))
    limits.GRAPHQL_QUESTIONS.check(len(questions))
    fields = [field for question in questions for field in question]
    judge(fields)


def _questions(document: DocumentNode, given: dict[str, Any]) -> Iterable[list[tuple[str, Any]]]:
    """The arguments of each field that has some, and what is in them."""
    for definition in document.definitions:
        variables = dict(given)
        if isinstance(definition, OperationDefinitionNode):
            for variable in definition.variable_definitions:
                if variable.default_value is not None:
                    variables.setdefault(variable.variable.name.value, value_of(variable.default_value, {}))
        stack = [getattr(definition, "selection_set", None)]
        while stack:
            selected = stack.pop()
            for node in selected.selections if selected is not None else ():
                if isinstance(node, FieldNode) and node.arguments:
                    yield list(_fields(node, variables))
                stack.append(getattr(node, "selection_set", None))


def _fields(node: FieldNode, variables: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for argument in node.arguments:
        value = value_of(argument.value, variables)
        yield argument.name.value, value
        if isinstance(value, dict):
            yield from value.items()


def value_of(node: ValueNode, variables: dict[str, Any]) -> Any:
    """What a value in the document stands for."""
    if isinstance(node, VariableNode):
        return variables.get(node.name.value)
    if isinstance(node, ListValueNode):
        return [value_of(value, variables) for value in node.values]
    if isinstance(node, ObjectValueNode):
        return {field.name.value: value_of(field.value, variables) for field in node.fields}
    return value_from_ast_untyped(node)
