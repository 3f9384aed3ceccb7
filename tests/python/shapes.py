"""Compares values with the shapes of botocore's model.

In: JSON from a request or an answer, and the expected shape. Out: nothing, or a failed assertion.
"""

import json

NUMBERS = {"integer": int, "long": int, "double": (int, float), "timestamp": (int, float)}


def check_members(value, shape):
    """Fails if a structure has an unknown member or a member of a wrong type, or if a text is too
    long.
    """
    if shape.type_name == "structure":
        assert set(value) <= set(shape.members), f"{shape.name}: {list(value)}"
        assert set(shape.required_members) <= set(value), f"{shape.name}: {list(value)}"
        for name, member in value.items():
            if member is not None:
                check_members(member, shape.members[name])
    elif shape.type_name == "list":
        assert type(value) is list, f"{shape.name}: {value}"
        for member in value:
            check_members(member, shape.member)
    elif shape.type_name == "map":
        for key, member in value.items():
            check_members(key, shape.key)
            check_members(member, shape.value)
    elif shape.type_name == "string":
        assert type(value) is str, f"{shape.name}: {value}"
        assert len(value) <= shape.metadata.get("max", len(value)), f"{shape.name}: {value}"
    elif shape.type_name == "boolean":
        assert type(value) is bool, f"{shape.name}: {value}"
    else:
        number = NUMBERS[shape.type_name]
        is_number = isinstance(value, number) and type(value) is not bool
        assert is_number, f"{shape.name}: {value}"
        assert shape.type_name != "integer" or value < 2**31, f"{shape.name}: {value}"


def check_answers(client):
    """Makes a boto3 client check each answer against the model. Returns the client."""

    def check(operation_model, response_dict, **_):
        if response_dict["status_code"] == 200:
            check_members(json.loads(response_dict["body"]), operation_model.output_shape)

    client.meta.events.register("before-parse.xray", check)
    return client
