"""The endpoints of a page, and the ways in which a client calls one."""

import inspect

import httpx


def name_of(function: object) -> str:
    """Return the module and name of a handler, without what guards it."""
    found = inspect.unwrap(function)
    return f"{found.__module__.rpartition('.')[2]}.{found.__qualname__}".replace(".<locals>", "")


def endpoints(demo) -> dict[int, tuple[str, object]]:
    """Return what the server runs, by its number: every event but those of the browser, and those that cancel."""
    config = demo.get_config_file()["dependencies"]
    return {
        d["id"]: (name_of(demo.fns[d["id"]].fn), demo.fns[d["id"]])
        for d in config
        if d["backend_fn"] and not d["cancels"]
    }


def by_run(client: httpx.Client, number: int, function, value=None) -> str:
    data = [value] * len(function.inputs)
    return client.post("/gradio_api/run/any", json={"data": data, "fn_index": number, "session_hash": "run"}).text


def by_queue(client: httpx.Client, number: int, function, value=None) -> str:
    body = {"data": [value] * len(function.inputs), "fn_index": number, "session_hash": f"queue{number}"}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": f"queue{number}"}) as stream:
        for line in stream.iter_lines():
            if "process_completed" in line or "unexpected_error" in line or "close_stream" in line:
                return line
    return ""


def by_call(client: httpx.Client, number: int, function) -> str:
    body = {"data": [None] * len(function.inputs)}
    joined = client.post(f"/gradio_api/call/{function.api_name}", json=body)
    if joined.status_code != 200:
        return joined.text
    with client.stream("GET", f"/gradio_api/call/{function.api_name}/{joined.json()['event_id']}") as stream:
        return "".join(stream.iter_text())
