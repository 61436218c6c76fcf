"""Holds answers of the gateway against its document: `gateway.py DOCUMENT`, one answer per line on stdin. Not whether all is seen."""

import json
import sys

import openapi_spec_validator
from jsonschema import Draft202012Validator, FormatChecker

document = json.load(open(sys.argv[1], encoding="utf-8"))
openapi_spec_validator.validate(document)
complaints = []
for line in sys.stdin:
    answer = json.loads(line)
    where = f"{answer['path']} {answer['status']}"
    response = document["paths"][answer["path"]]["post"]["responses"].get(str(answer["status"]))
    schema = (response or {}).get("content", {}).get(answer["type"], {}).get("schema")
    if schema is None:
        complaints.append(f"{where}: not documented as {answer['type']}")
        continue
    validator = Draft202012Validator({**schema, "components": document["components"]}, format_checker=FormatChecker())
    complaints += [f"{where}: {error.json_path}: {error.message}" for error in validator.iter_errors(answer["body"])]
print("\n".join(complaints))
sys.exit(bool(complaints))
