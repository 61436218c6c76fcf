"""Gives schemathesis a panel's token, and names that the gateway knows: what is made up from nothing never gets past the first door."""

import os
import random

import requests
import schemathesis

KEYS = ["a", "b", "c:d"]
PROFILES = ["gp", "kernelhost", "nobody"]
PLANS = ["42", "10k", "20k", "?"]
# In seconds: nobody here has the time that a panel has.
WAITS = ["0", "1"]


class Bearer(requests.auth.AuthBase):
    def __call__(self, request):
        request.headers["Prefer"] = "wait=" + random.choice(WAITS)
        request.headers["Authorization"] = "Bearer " + os.environ["PANEL_TOKEN"]
        return request


schemathesis.auth.set_from_requests(Bearer())


def known(schema):
    """The members of a body that have to be known names to get anywhere."""
    properties = schema.get("properties", {})
    for name, values in {"profile": PROFILES, "plan": PLANS}.items():
        if name in properties:
            properties[name] = {"enum": values}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Every request has a token: what one without is answered is tested elsewhere."""
    raw_schema["security"] = []
    raw_schema["components"].pop("securitySchemes", None)
    for path in raw_schema["paths"].values():
        for operation in path.values():
            operation["security"] = []
            parameters = [parameter for parameter in operation.get("parameters", []) if parameter["name"] != "Prefer"]
            operation["parameters"] = parameters
            for parameter in parameters:
                if parameter["name"] == "wait":
                    parameter |= {"required": True, "schema": {"enum": WAITS}}
                elif parameter["in"] == "path" and parameter["name"] in ("key", "profile"):
                    parameter["schema"] = {"enum": KEYS if parameter["name"] == "key" else PROFILES}
            for media in operation.get("requestBody", {}).get("content", {}).values():
                known(media["schema"])
