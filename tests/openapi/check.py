"""Holds answers against the OpenAPI document: `check.py DOCUMENT [--these]`, one answer per line on stdin. A line with `unseen` says
why a documented answer is not among them. With `--these` it is not asked whether all documented answers are.

The document itself is validated first, and each of its examples. A client must ignore members it does not know; here they are
errors, since what is answered is to be documented.
"""

import base64
import json
import sys

import openapi_spec_validator
from jsonschema import Draft202012Validator, FormatChecker

# What HTTP adds by itself.
TRANSPORT = {"content-length", "content-type", "date", "connection", "allow"}
METHODS = {"get", "put", "post", "delete", "patch"}

document = json.load(open(sys.argv[1], encoding="utf-8"))
openapi_spec_validator.validate(document)
complaints = []


def resolved(node):
    while "$ref" in node:
        reference, node = node["$ref"], document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    return node


def close(node):
    """Forbids members that are not named."""
    if isinstance(node, list):
        for child in node:
            close(child)
    elif isinstance(node, dict):
        for child in node.values():
            close(child)
        if node.get("type") == "object" and "properties" in node:
            node.setdefault("additionalProperties", False)


def validator(schema):
    return Draft202012Validator({**schema, "components": document["components"]}, format_checker=FormatChecker())


def judge(where, schema, value):
    for error in validator(schema).iter_errors(value):
        complaints.append(f"{where}: {error.json_path}: {error.message}")


def examples(node, where):
    """Every example, of media types, parameters, headers and schemas."""
    if isinstance(node, dict):
        if "schema" in node and "example" in node:
            judge(f"example of {where}", node["schema"], node["example"])
        if "properties" in node or "type" in node:
            for example in node.get("examples", []) if isinstance(node.get("examples"), list) else []:
                judge(f"example of {where}", node, example)
        for name, child in node.items():
            examples(child, f"{where}/{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            examples(child, f"{where}/{number}")


def header_value(schema, text):
    return int(text) if resolved(schema).get("type") == "integer" and text.isdigit() else text


def check(answer):
    name, status = answer["operation"], str(answer["status"])
    where = f"{name} {status}"
    if status not in operations[name]["responses"]:
        complaints.append(f"{where}: not documented")
        return
    response = resolved(operations[name]["responses"][status])
    got = {}
    for header, value in answer["headers"]:
        header = header.lower()
        if header in got:
            complaints.append(f"{where}: {header} twice")
        got[header] = value
    declared = {header.lower(): resolved(value) for header, value in response.get("headers", {}).items()}
    for header, value in got.items():
        if header in declared:
            judge(f"{where}, {header}", declared[header]["schema"], header_value(declared[header]["schema"], value))
        elif header not in TRANSPORT:
            complaints.append(f"{where}: the header {header} is not documented")
    complaints.extend(f"{where}: no {h}" for h, value in declared.items() if value.get("required") and h not in got)
    body = base64.b64decode(answer["body"])
    media = got.get("content-type", "").split(";")[0]
    content = response.get("content", {})
    if bool(content) != bool(body) or (content and media not in content):
        complaints.append(f"{where}: {len(body)} bytes of `{media}`, documented are {list(content)}")
    elif media.endswith("json"):
        schema = content[media]["schema"]
        is_problem = media == "application/problem+json"
        judge(where, {**schema, "unevaluatedProperties": False} if is_problem else schema, json.loads(body))


operations = {}
for path in document["paths"].values():
    operations.update({operation["operationId"]: operation for method, operation in path.items() if method in METHODS})
examples(document, "")
# A problem's members are named in two places, so it is closed where they meet.
close([schema for name, schema in document["components"]["schemas"].items() if name != "Problem"])
for operation in operations.values():
    close(operation["responses"])
seen, excused = set(), set()
for line in sys.stdin:
    given = json.loads(line)
    kind = (given["operation"], str(given["status"]))
    if "unseen" in given:
        excused.add(kind)
    else:
        seen.add(kind)
        check(given)
documented = {(name, status) for name, operation in operations.items() for status in operation["responses"]}
complaints += [f"{name} {status}: excused, but it is seen" for name, status in sorted(excused & seen)]
complaints += [f"{name} {status}: excused, but not documented" for name, status in sorted(excused - documented)]
if "--these" not in sys.argv:
    complaints += [f"{name} {status}: never seen" for name, status in sorted(documented - seen - excused)]
print("\n".join(complaints) or f"{len(seen)} kinds of answers, all as documented; {len(excused)} not seen for a reason")
sys.exit(bool(complaints))
